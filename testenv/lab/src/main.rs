//! `fiberlb-lab`: a lab by hand.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use fiberlb_lab::{FoundLab, Lab, Release, Vm, VmSpec, find_labs};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

/// Real OVN in namespaces, to play with.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Start a lab and keep it until Ctrl-C: switch sw0 with VMs vm1, vm2, ... (10.0.0.N and fd00::N), spread over
    /// chassis ch1, ch2, ...
    Up {
        /// Its name.
        #[arg(default_value = "lab")]
        name: String,
        /// Number of chassis.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=50))]
        chassis: u8,
        /// Number of VMs.
        #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(0..=250))]
        vms: u8,
    },
    /// Run a command in a VM of a lab.
    Exec {
        /// The lab's name.
        lab: String,
        /// The VM's name.
        vm: String,
        /// The command.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Run ovn-nbctl against a lab.
    Nbctl {
        /// The lab's name.
        lab: String,
        /// Arguments of ovn-nbctl.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Print the release of OVN that labs run on; FIBERLB_OVN chooses it.
    Release,
    /// List the labs that run on this machine.
    List,
    /// End labs whose owner is gone. They end by themselves: this should never find one.
    Clean,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Arguments::parse().action).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(action: Action) -> Result<()> {
    match action {
        Action::Up { name, chassis, vms } => up(&name, chassis, vms).await,
        Action::Exec { lab, vm, command } => exec(&lab, &vm, &command),
        Action::Nbctl { lab, arguments } => nbctl(&lab, &arguments),
        Action::Release => {
            println!("{}", Release::chosen()?);
            Ok(())
        }
        Action::List => {
            list();
            Ok(())
        }
        Action::Clean => clean(),
    }
}

async fn up(name: &str, chassis: u8, vms: u8) -> Result<()> {
    // Before the lab exists, so that no signal comes between.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let lab = tokio::select! {
        lab = build(name, chassis, vms) => lab?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    println!("ready: Ctrl-C ends it and leaves nothing behind");
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(lab.close()?)
}

async fn build(name: &str, chassis: u8, vms: u8) -> Result<Lab> {
    let lab = Lab::start(name).await?;
    let names: Vec<String> = (1..=chassis).map(|number| format!("ch{number}")).collect();
    lab.add_all_chassis(&names.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    lab.add_switch("sw0", &[]).await?;
    let specs = names.iter().cycle().zip(1..=vms).map(|(chassis, number)| spec(chassis, number));
    let vms = lab.add_vms(specs.collect()).await?;
    describe(&lab, &vms);
    Ok(lab)
}

fn spec(chassis: &str, number: u8) -> VmSpec {
    VmSpec::new(&format!("vm{number}"), chassis, "sw0")
        .address(&format!("10.0.0.{number}/24"))
        .address(&format!("fd00::{number}/64"))
}

fn describe(lab: &Lab, vms: &[Vm]) {
    let name = lab.world().name();
    for vm in vms {
        let addresses: Vec<String> = vm.addresses().iter().map(ToString::to_string).collect();
        println!("{} on {}: {}", vm.name(), vm.chassis(), addresses.join(" "));
    }
    println!("northbound: {}", lab.nb_endpoint());
    println!("shell:      {}", lab.nsenter_line());
    println!("try:        fiberlb-lab nbctl {name} -- show");
    println!("            fiberlb-lab exec {name} vm1 -- ip address");
}

fn exec(lab: &str, vm: &str, command: &[String]) -> Result<()> {
    let lab = find(lab)?;
    let mut nsenter = Command::new("nsenter");
    nsenter.args(lab.world.nsenter(Some(&format!("vm.{vm}")))).arg("--").args(command);
    Err(nsenter.exec()).context("nsenter")
}

fn nbctl(lab: &str, arguments: &[String]) -> Result<()> {
    let socket = find(lab)?.world.path("/run/central/nb.sock");
    let mut nbctl = Release::chosen()?.command("ovn-nbctl");
    nbctl.arg(format!("--db=unix:{}", socket.display())).args(arguments);
    Err(nbctl.exec()).context("ovn-nbctl")
}

fn list() {
    for lab in find_labs() {
        let owner = if lab.owner_alive { "" } else { " (gone)" };
        println!("{}\tpid {}\towner {}{owner}", lab.world.name(), lab.world.init(), lab.owner);
    }
}

fn clean() -> Result<()> {
    for lab in find_labs().into_iter().filter(|lab| !lab.owner_alive) {
        kill(Pid::from_raw(lab.world.init().try_into()?), Signal::SIGKILL)?;
        println!("ended {}", lab.world.name());
    }
    Ok(())
}

fn find(name: &str) -> Result<FoundLab> {
    let mut found: Vec<FoundLab> = find_labs().into_iter().filter(|lab| lab.world.name() == name).collect();
    match (found.pop(), found.is_empty()) {
        (Some(lab), true) => Ok(lab),
        (None, _) => bail!("no lab {name:?} runs here (see `fiberlb-lab list`)"),
        (Some(_), false) => bail!("several labs {name:?} run here (see `fiberlb-lab list`)"),
    }
}
