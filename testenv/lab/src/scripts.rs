//! The shell scripts that run inside a lab. Each says at its head what it does and takes.

/// PID 1 of the world. Given to `sh -c`, since the world has no files of ours yet.
pub(crate) const WORLD: &str = include_str!("scripts/world.sh");

/// Name and text of all others, installed as `/run/lib/NAME` in the world.
pub(crate) const ALL: [(&str, &str); 6] = [
    ("central.sh", include_str!("scripts/central.sh")),
    ("chassis.sh", include_str!("scripts/chassis.sh")),
    ("host.sh", include_str!("scripts/host.sh")),
    ("link.sh", include_str!("scripts/link.sh")),
    ("vm.sh", include_str!("scripts/vm.sh")),
    ("remove-vm.sh", include_str!("scripts/remove-vm.sh")),
];
