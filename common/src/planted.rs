//! Planted bugs: named defects that tests switch on to prove that the suite catches them.
//!
//! A place that a rule protects asks [`active`] with the bug's name. Without the build feature
//! `planted` the answer is a constant `false` and the place compiles to nothing; with it, the
//! answer is what the current thread switched on, so that tests side by side do not disturb each
//! other. Release builds never have the feature.

/// Whether the planted bug `name` is switched on for the current thread.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn active(_name: &str) -> bool {
    false
}

#[cfg(feature = "planted")]
mod switch {
    use std::cell::RefCell;

    thread_local! {
        static ACTIVE: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }

    /// Whether the planted bug `name` is switched on for the current thread.
    pub fn active(name: &str) -> bool {
        ACTIVE.with_borrow(|bugs| bugs.iter().any(|bug| bug == name))
    }

    /// Switches the planted bug `name` on for the current thread until the guard is dropped.
    #[must_use]
    pub fn plant(name: &str) -> Planted {
        ACTIVE.with_borrow_mut(|bugs| bugs.push(name.to_owned()));
        Planted { name: name.to_owned() }
    }

    /// Keeps a planted bug switched on.
    #[derive(Debug)]
    pub struct Planted {
        name: String,
    }

    impl Drop for Planted {
        fn drop(&mut self) {
            ACTIVE.with_borrow_mut(|bugs| {
                if let Some(at) = bugs.iter().position(|bug| *bug == self.name) {
                    bugs.remove(at);
                }
            });
        }
    }
}

#[cfg(feature = "planted")]
pub use switch::{Planted, active, plant};
