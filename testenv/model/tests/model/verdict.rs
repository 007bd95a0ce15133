//! Verdicts: the answers that a call may get.

use std::collections::BTreeSet;

use tonic::{Code, Status};

use crate::api::violated;

/// Class of what is wrong with a field. Of several the first one is the worst, and gives the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// Can never be valid.
    Invalid,
    /// Does not go with other resources, or with the network.
    Unmet,
    /// Another resource has it.
    Taken,
    /// Known, not supported.
    Unsupported,
}

impl Class {
    fn code(self) -> Code {
        match self {
            Self::Invalid => Code::InvalidArgument,
            Self::Unmet => Code::FailedPrecondition,
            Self::Taken => Code::AlreadyExists,
            Self::Unsupported => Code::Unimplemented,
        }
    }
}

/// A field that is wrong.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    class: Class,
    /// Paths that a violation may have for it: one, or several where each of them is to blame.
    paths: Vec<String>,
}

impl Fault {
    pub(crate) fn new(class: Class, at: &str, field: &str) -> Self {
        Self { class, paths: vec![joined(at, field)] }
    }

    /// One that either of two fields is to blame for.
    pub(crate) fn or(mut self, at: &str, field: &str) -> Self {
        self.paths.push(joined(at, field));
        self
    }

    pub(crate) fn is_at(&self, field: &str) -> bool {
        self.paths.iter().any(|path| path == field || path.ends_with(&format!(".{field}")))
    }

    pub(crate) fn is_invalid(&self) -> bool {
        self.class == Class::Invalid
    }

    /// True if a violation of this path names it: the field, what is in it, or what it is in.
    fn is_named(&self, found: &str) -> bool {
        let is_below = |outer: &str, inner: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.paths.iter().any(|path| is_below(path, found) || is_below(found, path))
    }
}

fn joined(at: &str, field: &str) -> String {
    if at.is_empty() { field.to_owned() } else { format!("{at}.{field}") }
}

/// Answers that a call may get.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    /// Fields that are wrong.
    pub(crate) sure: Vec<Fault>,
    /// Fields that may be found wrong: taken by what is being deleted, or in relation to one that cannot be read.
    pub(crate) maybe: Vec<Fault>,
    /// Other refusals, one of which must come if no field is wrong.
    pub(crate) codes: BTreeSet<i32>,
    /// Refusals that may come.
    pub(crate) maybe_codes: BTreeSet<i32>,
}

impl Verdict {
    pub(crate) fn refuse(&mut self, code: Code) {
        self.codes.insert(code.into());
    }

    pub(crate) fn may_refuse(&mut self, code: Code) {
        self.maybe_codes.insert(code.into());
    }

    pub(crate) fn must_fail(&self) -> bool {
        !self.sure.is_empty() || !self.codes.is_empty()
    }

    /// Moves faults that were found in relation to others to those that may be found, since other things are wrong, too.
    pub(crate) fn relations(&mut self, found: Vec<Fault>) {
        let is_alone = self.sure.is_empty() && self.codes.is_empty();
        if is_alone { self.sure.extend(found) } else { self.maybe.extend(found) }
    }

    /// Without a network nothing can be said of what the addresses are on it.
    pub(crate) fn soften_addresses(&mut self) {
        if self.sure.iter().any(|fault| fault.is_at("network")) {
            let fields = ["vip_address", "vip_subnet", "additional_vips"];
            self.soften(|fault| fields.iter().any(|field| fault.is_at(field)));
        }
    }

    fn soften(&mut self, which: impl Fn(&Fault) -> bool) {
        let (soft, others) = std::mem::take(&mut self.sure).into_iter().partition(which);
        self.sure = others;
        self.maybe.extend::<Vec<Fault>>(soft);
    }

    /// Judges a refusal.
    ///
    /// # Errors
    /// Reason why it is wrong.
    pub(crate) fn judge(&self, refused: &Status) -> Result<(), String> {
        let worst = self.sure.iter().map(|fault| fault.class).min();
        let worse = self
            .maybe
            .iter()
            .map(|fault| fault.class)
            .filter(|class| worst.is_none_or(|worst| *class < worst));
        let by_fields: Vec<Code> = worst.into_iter().chain(worse).map(Class::code).collect();
        let others = self.codes.union(&self.maybe_codes).map(|code| Code::from(*code));
        let expected: Vec<Code> = by_fields.iter().copied().chain(others).collect();
        if !expected.contains(&refused.code()) {
            return Err(format!("expected {expected:?}"));
        }
        let found = violated(refused);
        if found.is_empty() {
            // A refusal for another reason.
            let is_other =
                self.codes.union(&self.maybe_codes).any(|code| Code::from(*code) == refused.code());
            return if is_other { Ok(()) } else { Err("no field is named".to_owned()) };
        }
        if let Some(missing) = self.sure.iter().find(|fault| !found.iter().any(|path| fault.is_named(path))) {
            return Err(format!("{:?} is wrong, too", missing.paths));
        }
        let known = || self.sure.iter().chain(&self.maybe);
        match found.iter().find(|path| !known().any(|fault| fault.is_named(path))) {
            Some(stray) => Err(format!("nothing is wrong with {stray}")),
            None => Ok(()),
        }
    }
}
