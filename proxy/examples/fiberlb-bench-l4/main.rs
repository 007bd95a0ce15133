//! Costs of a connection, a request, a gigabyte, an idle connection and a datagram in FiberLB's data plane, against HAProxy (which has
//! no UDP), nginx and Envoy, one worker of each. Ends in lines `FIGURE <name> <value> ratio goal <=<goal> met|missed`, where the value is FiberLB's
//! cost over that of the best rival: the median of the ratios of all rounds, with the interval in which it lies with 95 %.
//!
//! Needs root, and what `testenv/install-packages.sh --bench` installs. Clients, proxy and backends have a network namespace
//! each, joined by veth; all is gone with the program.

#![expect(clippy::indexing_slicing, reason = "a benchmark that ends with a panic harms nobody")]

mod backend;
mod client;
mod measure;
mod relay;
mod rivals;
mod statistics;
mod world;

use anyhow::{Context as _, bail, ensure};

use crate::client::Load;
use crate::rivals::Rival;
use crate::statistics::Ratio;
use crate::world::World;

/// Rounds where nothing else is said.
const ROUNDS: usize = 10;
/// Share by which the interval of a figure may exceed its goal.
const MARGIN: f64 = 0.05;

/// A cost that is compared.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Figure {
    name: &'static str,
    load: Load,
    unit: &'static str,
    goal: f64,
}

const FIGURES: [Figure; 8] = [
    Figure { name: "l4_connection_cpu", load: Load::Connections, unit: "us of CPU", goal: 0.90 },
    Figure { name: "l4_request_cpu", load: Load::Requests, unit: "us of CPU", goal: 0.85 },
    Figure { name: "l4_gigabyte_cpu", load: Load::Stream, unit: "ms of CPU", goal: 0.95 },
    Figure { name: "l4_idle_bytes", load: Load::Idle, unit: "bytes", goal: 0.55 },
    Figure { name: "l4_request_p99", load: Load::Paced, unit: "us", goal: 1.1 },
    Figure { name: "udp_datagram_cpu_2000", load: Load::Datagrams(2_000), unit: "us of CPU", goal: 0.95 },
    Figure { name: "udp_datagram_cpu_20000", load: Load::Datagrams(20_000), unit: "us of CPU", goal: 0.70 },
    Figure { name: "udp_datagram_cpu_saturated", load: Load::Saturated, unit: "us of CPU", goal: 0.70 },
];

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["hold"] => world::hold(),
        ["backend"] => backend::serve(),
        ["relay", folder] => relay::serve(folder),
        ["client", load] => client::run(load.parse()?, 0),
        ["client", load, pace] => client::run(load.parse()?, pace.parse().context("requests a second")?),
        [] => compare(ROUNDS, &FIGURES),
        [rounds] => compare(rounds.parse().context("a number of rounds")?, &FIGURES),
        [rounds, names @ ..] => {
            let chosen: Vec<Figure> =
                FIGURES.into_iter().filter(|figure| names.contains(&figure.name)).collect();
            compare(rounds.parse().context("a number of rounds")?, &chosen)
        }
    }
}

/// Costs of one rival in one round; `None`: it does not serve that protocol.
type Costs = Vec<Option<f64>>;

fn compare(rounds: usize, figures: &[Figure]) -> anyhow::Result<()> {
    if figures.is_empty() || rounds == 0 {
        bail!("usage: fiberlb-bench-l4 [ROUNDS [FIGURE...]], of {:?}", FIGURES.map(|figure| figure.name));
    }
    let world = World::new()?;
    for rival in Rival::ALL {
        println!("{rival}: {}", rival.version()?);
    }
    let pace = if figures.iter().any(|figure| figure.load == Load::Paced) { pace(&world)? } else { 0 };
    let mut all: Vec<Vec<Costs>> = Vec::new();
    for round in 1..=rounds {
        let mut of_round = vec![Costs::new(); Rival::ALL.len()];
        // Each is the first one in turn, so that none always follows the same other one.
        for place in (0..Rival::ALL.len()).map(|place| (place + round) % Rival::ALL.len()) {
            let rival = Rival::ALL[place];
            let costs = measure::costs(&world, rival, figures, pace)?;
            let shown: Vec<String> = figures
                .iter()
                .zip(&costs)
                .filter_map(|(figure, cost)| Some(format!("{} {:.1} {}", figure.name, (*cost)?, figure.unit)))
                .collect();
            println!("round {round} {rival}: {}", shown.join(", "));
            of_round[place] = costs;
        }
        all.push(of_round);
    }
    let mut missed = 0;
    for (place, figure) in figures.iter().enumerate() {
        missed += usize::from(!judge(place, figure, &all)?);
    }
    ensure!(missed == 0, "{missed} figures missed their goal");
    Ok(())
}

/// Half of the requests a second that the slowest rival serves.
fn pace(world: &World) -> anyhow::Result<u32> {
    let mut slowest = f64::INFINITY;
    for rival in Rival::ALL {
        let rate = measure::request_rate(world, rival)?;
        println!("{rival}: {rate:.0} requests a second");
        slowest = slowest.min(rate);
    }
    let pace = (slowest / 2.0) as u32;
    println!("{pace} requests a second for the latency");
    Ok(pace)
}

/// Prints a figure beside the best rival's. Returns true if its goal is met.
fn judge(place: usize, figure: &Figure, all: &[Vec<Costs>]) -> anyhow::Result<bool> {
    let of = |rival: usize| -> Vec<f64> { all.iter().filter_map(|round| round[rival][place]).collect() };
    let mut best: Option<(f64, usize)> = None;
    for (index, rival) in Rival::ALL.into_iter().enumerate() {
        let costs = of(index);
        if costs.is_empty() {
            continue;
        }
        let median = statistics::median(costs);
        println!("{} {rival}: median {median:.1} {}", figure.name, figure.unit);
        if index > 0 && best.is_none_or(|(least, _)| median < least) {
            best = Some((median, index));
        }
    }
    let (_, best) = best.context("no rival")?;
    let Ratio { median, low, high } = statistics::ratio(&of(0), &of(best));
    let is_met = median <= figure.goal && high <= figure.goal + MARGIN;
    println!(
        "FIGURE {} {median:.3} ({low:.3} to {high:.3}) ratio to {} goal <={} {}",
        figure.name,
        Rival::ALL[best],
        figure.goal,
        if is_met { "met" } else { "missed" }
    );
    Ok(is_met)
}
