//! Tasks that wait for a number to be durable.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::task::Waker;

/// Who waits for which number, the lowest first.
#[derive(Debug, Default)]
pub(crate) struct Waiters(BinaryHeap<Waiter>);

#[derive(Debug)]
struct Waiter {
    number: u64,
    waker: Waker,
}

impl Waiters {
    pub(crate) fn add(&mut self, number: u64, waker: &Waker) {
        self.0.push(Waiter { number, waker: waker.clone() });
    }

    /// Takes those out who wait for `number` or less.
    pub(crate) fn take_through(&mut self, number: u64, out: &mut Vec<Waker>) {
        while self.0.peek().is_some_and(|waiter| waiter.number <= number) {
            out.extend(self.0.pop().map(|waiter| waiter.waker));
        }
    }

    /// Takes those out who wait for `number` or more.
    pub(crate) fn take_from(&mut self, number: u64) -> Vec<Waker> {
        let all = std::mem::take(&mut self.0).into_vec().into_iter();
        let (taken, others): (Vec<_>, Vec<_>) = all.partition(|waiter| waiter.number >= number);
        self.0 = others.into();
        taken.into_iter().map(|waiter| waiter.waker).collect()
    }

    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = Waker> + use<> {
        std::mem::take(&mut self.0).into_iter().map(|waiter| waiter.waker)
    }
}

impl PartialEq for Waiter {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Waiter {}

impl PartialOrd for Waiter {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The lowest number is the greatest, so that the heap gives it first.
impl Ord for Waiter {
    fn cmp(&self, other: &Self) -> Ordering {
        other.number.cmp(&self.number)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::Wake;

    use super::*;

    #[derive(Debug, Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    /// How often each of those who wait for the numbers 1 to 5 is woken by `wake`.
    fn woken(wake: impl FnOnce(&mut Waiters) -> Vec<Waker>) -> Vec<usize> {
        let counts: Vec<Arc<Count>> = (0..5).map(|_| Arc::default()).collect();
        let mut waiters = Waiters::default();
        for number in [3, 1, 5, 2, 4] {
            waiters.add(number, &counts[number as usize - 1].clone().into());
        }
        wake(&mut waiters).into_iter().for_each(Waker::wake);
        counts.iter().map(|count| count.0.load(Relaxed)).collect()
    }

    #[test]
    fn those_are_woken_whose_number_is_reached_or_will_never_be() {
        let through = |number| {
            woken(|waiters| {
                let mut out = Vec::new();
                waiters.take_through(number, &mut out);
                waiters.take_through(number, &mut out);
                out
            })
        };
        assert_eq!(through(0), [0; 5]);
        assert_eq!(through(3), [1, 1, 1, 0, 0]);
        let from = |number| woken(|waiters| waiters.take_from(number));
        assert_eq!(from(3), [0, 0, 1, 1, 1]);
        let both = woken(|waiters| {
            let mut out = waiters.take_from(4);
            waiters.take_through(1, &mut out);
            out.extend(waiters.take_all());
            out
        });
        assert_eq!(both, [1; 5]);
    }
}
