//! An object of the API as the linearizability checker sees it: made once, updated, deleted once, with a generation that
//! counts its writes. Pure.

use crate::linearizability::Model;

/// An object at a moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// It was not made yet.
    Absent,
    /// It is there.
    Live {
        /// Number of its writes, its create included.
        generation: u64,
        /// Value of the last write.
        value: String,
    },
    /// It was deleted.
    Gone,
}

/// Effect on an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It is made.
    Create {
        /// Its value.
        value: String,
    },
    /// It gets another value.
    Update {
        /// The value.
        value: String,
        /// The one that it must have before.
        expected: Option<String>,
        /// The generation that it is known to have had after that; `None`: nobody has seen it.
        generation: Option<u64>,
    },
    /// It is deleted.
    Delete {
        /// The value that it must have.
        expected: Option<String>,
    },
    /// It is looked at, where what is seen must be what is.
    Look {
        /// Generation and value; `None`: it was not there, or being deleted.
        seen: Option<(u64, String)>,
    },
}

/// The rules of the API for one object.
#[derive(Clone, Copy, Debug)]
pub struct RegisterModel;

impl Model for RegisterModel {
    type State = State;
    type Operation = Operation;

    fn apply(state: &State, operation: &Operation) -> Option<State> {
        match (state, operation) {
            (State::Absent, Operation::Create { value }) => {
                Some(State::Live { generation: 1, value: value.clone() })
            }
            (
                State::Live { generation, value: before },
                Operation::Update { value, expected, generation: known },
            ) => {
                let next = generation + 1;
                (is_expected(expected.as_ref(), before) && known.is_none_or(|known| known == next))
                    .then(|| State::Live { generation: next, value: value.clone() })
            }
            (State::Live { value, .. }, Operation::Delete { expected }) => {
                is_expected(expected.as_ref(), value).then_some(State::Gone)
            }
            // To delete what is being deleted is answered with what is.
            (State::Gone, Operation::Delete { .. }) => Some(State::Gone),
            (state, Operation::Look { seen }) => (*seen == live(state)).then(|| state.clone()),
            _ => None,
        }
    }
}

fn live(state: &State) -> Option<(u64, String)> {
    match state {
        State::Live { generation, value } => Some((*generation, value.clone())),
        State::Absent | State::Gone => None,
    }
}

fn is_expected(expected: Option<&String>, value: &String) -> bool {
    expected.is_none_or(|expected| expected == value)
}
