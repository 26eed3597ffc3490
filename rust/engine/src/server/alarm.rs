//! A time limit that moves with every request and is hardly ever reached.
//!
//! Setting a timer costs an entry in the runtime's wheel, under a lock, and another one to take it out again. So the
//! timer of a connection stays where it was first set: when it goes off early, it is set again, for the rest. A
//! connection that is busy pays for one timer in every `timeouts.head` or so, however many requests it carries.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep};

use crate::io::clock::{self, Millis};

/// The timer of one task, which must be the only one that polls it.
#[derive(Debug, Default)]
pub struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    /// When the timer goes off.
    at: Millis,
}

/// The limit was reached first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late;

impl Alarm {
    /// Ready once the clock has reached `deadline`. Until then the task will be woken at the deadline, or before.
    pub fn poll(&mut self, cx: &mut Context<'_>, deadline: Millis) -> Poll<()> {
        loop {
            let now = clock::now();
            if now >= deadline {
                return Poll::Ready(());
            }
            if self.at <= deadline && self.sleep.as_ref().is_some_and(|sleep| !sleep.is_elapsed()) {
                return Poll::Pending;
            }
            // The clock is coarse: one tick more, or this would go round once more for nothing.
            self.set(deadline, Instant::now() + Duration::from_millis(deadline - now + 1));
            let sleep = self.sleep.as_mut().map(Pin::as_mut);
            // Without budget the task would be told to come back, and not be entered at the timer.
            if sleep.is_some_and(|sleep| Pin::new(&mut unconstrained(sleep)).poll(cx).is_pending()) {
                return Poll::Pending;
            }
        }
    }

    fn set(&mut self, at: Millis, when: Instant) {
        self.at = at;
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(when),
            None => self.sleep = Some(Box::pin(tokio::time::sleep_until(when))),
        }
    }

    /// Waits for `work`, and no longer than `limit` from now.
    pub async fn within<F: Future>(&mut self, limit: Millis, mut work: Pin<&mut F>) -> Result<F::Output, Late> {
        let deadline = clock::now() + limit;
        std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => self.poll(cx, deadline).map(|()| Err(Late)),
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    fn run<F: Future<Output = ()>>(work: F) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
    }

    #[test]
    fn work_that_is_done_in_time_is_not_disturbed() {
        run(async {
            let mut alarm = Alarm::default();
            assert_eq!(alarm.within(10_000, pin!(async { 7 })).await, Ok(7));
            assert!(alarm.sleep.is_none(), "nothing was waited for, so no timer was set");
        });
    }

    #[test]
    fn a_timer_that_was_set_for_less_is_set_again_for_the_rest() {
        run(async {
            let mut alarm = Alarm::default();
            let never = std::future::pending::<()>;
            assert_eq!(alarm.within(20, pin!(never())).await, Err(Late));
            let begin = clock::now();
            // The second limit begins while the timer of the first is still set.
            assert_eq!(alarm.within(50, pin!(tokio::task::yield_now())).await, Ok(()));
            let set_for = alarm.at;
            assert_eq!(alarm.within(200, pin!(never())).await, Err(Late));
            assert!(clock::now() >= begin + 200);
            assert!(set_for < begin + 200 && alarm.at >= begin + 200);
        });
    }

    #[test]
    fn a_timer_that_was_set_for_more_is_set_for_less() {
        run(async {
            let mut alarm = Alarm::default();
            assert_eq!(alarm.within(100_000, pin!(tokio::task::yield_now())).await, Ok(()));
            assert_eq!(alarm.within(20, pin!(std::future::pending::<()>())).await, Err(Late));
        });
    }
}
