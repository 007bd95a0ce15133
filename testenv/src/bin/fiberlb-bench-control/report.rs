//! Figures, as lines that people and programs read.

/// Prints figures and counts those that missed their goal.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) missed: u32,
}

impl Report {
    pub(crate) fn at_least(&mut self, name: &str, value: f64, unit: &str, goal: f64) {
        self.line(name, value, unit, &format!(">={goal}"), value >= goal);
    }

    pub(crate) fn at_most(&mut self, name: &str, value: f64, unit: &str, goal: f64) {
        self.line(name, value, unit, &format!("<={goal}"), value <= goal);
    }

    pub(crate) fn below(&mut self, name: &str, value: f64, unit: &str, goal: f64) {
        self.line(name, value, unit, &format!("<{goal}"), value < goal);
    }

    fn line(&mut self, name: &str, value: f64, unit: &str, goal: &str, met: bool) {
        self.missed += u32::from(!met);
        let unit = if unit.is_empty() { "ratio" } else { unit };
        println!("FIGURE {name} {value:.3} {unit} goal {goal} {}", if met { "met" } else { "missed" });
    }
}
