//! Waiting for others, and not for longer than one should. This process can stand still itself
//! (traced, frozen, or starved of the processor), and what others did in time lies unread then:
//! before somebody is taken for late, what there is of him is read once more. And being waited for:
//! who leaves does not leave half a change behind.

use std::pin::pin;
use std::time::Duration;

use tokio::task::JoinError;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

/// What it takes to read what has come, on a machine with much to do.
pub const LAST_LOOK: Duration = Duration::from_secs(1);

/// The same as a timeout, with a last look at its end.
pub async fn within<F: Future>(deadline: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    match timeout(deadline, future.as_mut()).await {
        Err(_) => timeout(LAST_LOOK, future).await,
        done => done,
    }
}

/// What was begun is done to its end, whether anybody waits for it or not.
pub async fn to_its_end<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(work).await.map_err(JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime ends, and whoever waits here with it.
        Err(Err(_)) => std::future::pending().await,
    }
}

/// What keeps a thread waiting is done on one that may wait. A panic there goes on here.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_just_late_is_heard_and_who_does_not_come_is_not() {
        let deadline = Duration::from_millis(1);
        let late = tokio::time::sleep(Duration::from_millis(50));
        assert!(within(deadline, late).await.is_ok());
        assert!(within(deadline, std::future::pending::<()>()).await.is_err());
    }
}
