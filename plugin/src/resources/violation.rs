//! Everything that is wrong with a specification or a request, collected before it is answered.

use std::ops::RangeInclusive;

use super::text::truncated;

/// Most violations of a request that are kept; further ones are counted. They travel in HTTP/2 trailers, whose size
/// clients limit.
const MOST: usize = 50;
/// Most bytes of the path of a field.
const PATH_BYTES: usize = 128;
/// Most bytes of a description.
const DESCRIPTION_BYTES: usize = 400;

/// Kind of a violation, the worst one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ViolationKind {
    /// A value that can never be valid.
    Invalid,
    /// A value that does not go with other resources, or with the network, as they are now.
    Unmet,
    /// A value that would be valid if nobody else had it.
    Taken,
    /// A value that is known, and not supported by this release.
    Unsupported,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Kind of it.
    pub kind: ViolationKind,
    /// Path of the field in the request, such as `tree.pools[0].pool.name`.
    pub field: String,
    /// Sentence for whoever sent the request.
    pub description: String,
}

/// The violations of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Violations {
    /// The first ones.
    found: Vec<Violation>,
    /// Number of the others.
    others: usize,
    worst: Option<ViolationKind>,
}

impl Violations {
    /// Returns true if the request can go on.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Worst kind among all that were found.
    pub fn worst(&self) -> Option<ViolationKind> {
        self.worst
    }

    /// Records a violation.
    pub fn push(&mut self, kind: ViolationKind, field: impl Into<String>, description: impl Into<String>) {
        self.worst = Some(self.worst.map_or(kind, |worst| worst.min(kind)));
        if self.found.len() == MOST {
            self.others += 1;
            return;
        }
        let field = truncated(&field.into(), PATH_BYTES).into_owned();
        let description = truncated(&description.into(), DESCRIPTION_BYTES).into_owned();
        self.found.push(Violation { kind, field, description });
    }

    /// Returns true if one was found at `path` or below it; `""` is the whole request.
    pub fn has_below(&self, path: &str) -> bool {
        let is_below = |field: &str| {
            let rest = field.strip_prefix(path);
            path.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.found.iter().any(|violation| is_below(&violation.field))
    }

    /// Paths of the violations in the order in which they were found.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.found.iter().map(|violation| violation.field.as_str())
    }

    /// Number of violations that were found beyond those that are kept.
    pub fn others(&self) -> usize {
        self.others
    }

    /// The first violations in the order in which they were found.
    pub fn into_vec(self) -> Vec<Violation> {
        self.found
    }
}

/// A place in a request, and the violations found there: every check records its findings here.
pub struct Form<'a> {
    prefix: String,
    violations: &'a mut Violations,
}

impl<'a> Form<'a> {
    /// A form for fields below `prefix`; `""` for the request's own resource.
    pub fn new(prefix: impl Into<String>, violations: &'a mut Violations) -> Self {
        Self { prefix: prefix.into(), violations }
    }

    /// Path of a field in the request.
    pub fn path(&self, field: &str) -> String {
        if self.prefix.is_empty() { field.to_owned() } else { format!("{}.{field}", self.prefix) }
    }

    /// Returns true if a violation of a field was found.
    pub fn has_wrong(&self, field: &str) -> bool {
        !self.violations.is_empty() && self.violations.has_below(&self.path(field))
    }

    /// Records a value that can never be valid.
    pub fn invalid(&mut self, field: &str, why: impl Into<String>) {
        let path = self.path(field);
        self.violations.push(ViolationKind::Invalid, path, why);
    }

    /// Records a value that does not go with other resources, or with the network, as they are now.
    pub fn unmet(&mut self, field: &str, why: impl Into<String>) {
        let path = self.path(field);
        self.violations.push(ViolationKind::Unmet, path, why);
    }

    /// Records a value that would be valid if nobody else had it.
    pub fn taken(&mut self, field: &str, why: impl Into<String>) {
        let path = self.path(field);
        self.violations.push(ViolationKind::Taken, path, why);
    }

    /// Records a value that this release does not support; `what` names it.
    pub fn unsupported(&mut self, field: &str, what: &str) {
        let path = self.path(field);
        self.violations.push(ViolationKind::Unsupported, path, format!("{what} is not supported yet"));
    }

    /// Records a number that is outside its range.
    pub fn check_range<N: PartialOrd + Copy + std::fmt::Display>(
        &mut self,
        field: &str,
        number: N,
        range: &RangeInclusive<N>,
    ) {
        if !range.contains(&number) {
            self.invalid(field, format!("must be {} to {}, given {number}", range.start(), range.end()));
        }
    }

    /// Records a time in milliseconds that is outside its range.
    pub fn check_millis(&mut self, field: &str, millis: u32, range: &RangeInclusive<u32>) -> bool {
        let is_inside = range.contains(&millis);
        if !is_inside {
            let seconds = |millis: &u32| f64::from(*millis) / 1000.0;
            self.invalid(
                field,
                format!("must be {} s to {} s", seconds(range.start()), seconds(range.end())),
            );
        }
        is_inside
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_covers_what_stands_below_it() {
        let mut violations = Violations::default();
        Form::new("tree.pools[0]", &mut violations).invalid("pool.name", "too long");
        assert!(
            ["", "tree", "tree.pools", "tree.pools[0].pool.name"]
                .map(|at| violations.has_below(at))
                .iter()
                .all(|has| *has)
        );
        assert!(!violations.has_below("tree.pool") && !violations.has_below("tree.pools[1]"));
    }

    #[test]
    fn what_is_kept_does_not_grow_with_the_request() {
        let mut violations = Violations::default();
        for index in 0..1000 {
            let mut form = Form::new(format!("pools[{index}]").repeat(100), &mut violations);
            form.taken("name", "x".repeat(10_000));
        }
        Form::new("", &mut violations).invalid("port", "last");
        assert_eq!(
            violations.worst(),
            Some(ViolationKind::Invalid),
            "of all, not only of those that are kept"
        );
        assert_eq!((violations.others(), violations.paths().count()), (1001 - MOST, MOST));
        let bytes: usize =
            violations.into_vec().iter().map(|found| found.field.len() + found.description.len()).sum();
        assert!(bytes < MOST * (PATH_BYTES + DESCRIPTION_BYTES + 2 * '…'.len_utf8()) + 1, "{bytes}");
    }
}
