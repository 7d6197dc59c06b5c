//! The golden path: an agent that answers on a thread, in steps that every tab of the thread sees in
//! order, and that a tab which comes back with `after=` is handed if it missed some.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::sleep;
use ws_manager_pool::{EventData, IdGenerator, Pool, Run, UserExecutionContext};

/// Agents that may be at work at a time: questions come from strangers.
const MOST: usize = 100;

static AT_WORK: AtomicUsize = AtomicUsize::new(0);

/// One of the places for agents.
struct Place;

impl Place {
    fn take() -> Option<Self> {
        let taken = AT_WORK
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < MOST).then_some(count + 1));
        taken.ok().map(|_| Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        AT_WORK.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Lets an agent answer a question on the context's thread. It goes on when the connection ends.
///
/// # Errors
///
/// What to tell whoever asked.
pub(crate) fn ask(pool: &Pool, context: &UserExecutionContext, question: &str) -> Result<(), String> {
    let place = Place::take().ok_or("all agents are at work: ask again in a moment")?;
    // The same thread, a run of its own.
    let user = context.user_id().as_str();
    let ids = IdGenerator::user_context_ids(user, "agent")
        .with_client_thread(&context.thread_id().to_string())
        .map_err(|error| error.to_string())?;
    let context =
        UserExecutionContext::from_websocket_request(user, ids).map_err(|error| error.to_string())?;
    let run = pool.start_run(&context, question);
    let words = question.split_whitespace().count();
    tokio::spawn(answer(run, words, place));
    Ok(())
}

/// A real agent would ask a model here, and run real tools.
async fn answer(mut run: Run, words: usize, _place: Place) {
    const STEP: Duration = Duration::from_millis(400);
    sleep(STEP).await;
    let _ = run.thinking("what was asked?");
    sleep(STEP).await;
    let _ = run.tool_executing("count words");
    sleep(STEP).await;
    // Cannot fail: a number has a JSON form.
    let _ = run.tool_completed(EventData::json(&words).unwrap_or_default());
    sleep(STEP).await;
    let _ = run.complete(format!("your question has {words} words").as_str());
}
