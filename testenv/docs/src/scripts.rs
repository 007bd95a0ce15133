//! The shell scripts that run on machines of a page's world. Each says at its head what it does and takes.

use anyhow::Result;
use fiberlb_lab::World;

/// Name and text of each.
const ALL: [(&str, &str); 4] = [
    ("journalctl.sh", include_str!("scripts/journalctl.sh")),
    ("machine.sh", include_str!("scripts/machine.sh")),
    ("scp.sh", include_str!("scripts/scp.sh")),
    ("systemctl.sh", include_str!("scripts/systemctl.sh")),
];

/// Writes them to `/run/lib/NAME` in a world.
pub(crate) fn install(world: &World) -> Result<()> {
    for (name, text) in ALL {
        world.install_script(name, text)?;
    }
    Ok(())
}
