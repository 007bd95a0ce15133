//! Runs a test, and once more where the lab's Open vSwitch is known to abort by itself, and has.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::{Arc, OnceLock};

use fiberlb_testenv::{Lab, abort, can_run};
use futures_util::FutureExt as _;

/// Times that a test is tried while that happens.
const ATTEMPTS: usize = 4;

tokio::task_local! {
    static LABS: RefCell<Vec<Arc<OnceLock<String>>>>;
}

/// Runs a test where a lab can be had. On a release that aborts by itself ([`abort`]), a test
/// that failed after an abort is run again, and says so.
pub(crate) async fn scenario<F: Future<Output = ()>>(test: &str, body: impl Fn() -> F) {
    if !can_run(test) {
        return;
    }
    for attempt in 1.. {
        let run = async {
            let ended = AssertUnwindSafe(body()).catch_unwind().await;
            (ended, LABS.with(|labs| labs.borrow().iter().any(|lab| is_broken(lab))))
        };
        match LABS.scope(RefCell::default(), run).await {
            (Ok(()), _) => return,
            (Err(_), true) if attempt < ATTEMPTS => {
                eprintln!("AGAIN {test}: ovs-vswitchd aborted in its conntrack (attempt {attempt})");
            }
            (Err(panic), _) => resume_unwind(panic),
        }
    }
}

/// Notes that the test has this lab.
pub(crate) fn has(lab: &Lab) {
    LABS.with(|labs| labs.borrow_mut().push(lab.emergency()));
}

fn is_broken(emergency: &OnceLock<String>) -> bool {
    let said = emergency.get().map_or("", String::as_str);
    let emergencies: Vec<&str> = said.lines().filter(|line| line.contains("|EMER|")).collect();
    abort::excuses(&emergencies.join("\n"))
}
