//! Medians, and how far to trust them.

/// Times that a sample is drawn again.
const DRAWS: usize = 10_000;

/// Median of paired ratios, with the interval in which it lies with 95 % (percentile bootstrap).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ratio {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// Ratio of what was measured in the same rounds.
pub(crate) fn ratio(ours: &[f64], theirs: &[f64]) -> Ratio {
    let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
    let mut random = fastrand::Rng::with_seed(1);
    let mut medians: Vec<f64> = (0..DRAWS)
        .map(|_| median(ratios.iter().map(|_| ratios[random.usize(..ratios.len())]).collect()))
        .collect();
    medians.sort_by(f64::total_cmp);
    let at = |share: f64| medians[((DRAWS - 1) as f64 * share) as usize];
    Ratio { median: median(ratios), low: at(0.025), high: at(0.975) }
}

/// Middle of the values: of an even number the mean of the two.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        even if even % 2 == 0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}
