//! What a run came to.

use crate::board::Figures;
use crate::checker::Account;
use crate::options::Plan;
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};
use std::fmt;
use std::time::Duration;

pub(crate) struct Report<'a> {
    plan: &'a Plan,
    figures: &'a Figures,
    account: Account,
    /// How long messages were sent.
    took: Duration,
}

/// Shares of a histogram that are told, in JSON and in words; the maximum beside them.
const SHARES: [(&str, &str, f64); 3] = [("p50", "p50", 0.5), ("p99", "p99", 0.99), ("p99_9", "p99.9", 0.999)];

impl<'a> Report<'a> {
    pub(crate) fn new(plan: &'a Plan, figures: &'a Figures, took: Duration) -> Self {
        let account = Account::settle(&figures.outboxes, &figures.inboxes);
        Self { plan, figures, account, took }
    }

    /// What must never happen.
    pub(crate) fn failures(&self) -> Vec<String> {
        let Figures { wrong_user, duplicates, out_of_order, .. } = *self.figures;
        [
            (wrong_user, "reached a wrong user"),
            (duplicates, "came twice"),
            (out_of_order, "came out of order"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} messages {what}"))
        .collect()
    }

    pub(crate) fn to_json(&self) -> Value {
        let (plan, figures) = (self.plan, self.figures);
        let ends = figures.ends.iter().map(|((how, code), count)| {
            let code = code.map_or(Value::Null, Value::from);
            json!({"by": how, "code": code, "count": count})
        });
        let refused: Map<_, _> =
            figures.refused.iter().map(|(status, count)| (status.to_string(), json!(count))).collect();
        json!({
            "url": plan.target.to_string(),
            "users": plan.users,
            "connections_per_user": plan.connections,
            "rate": plan.rate,
            "seconds": self.took.as_secs_f64(),
            "ends": plan.ends.iter().map(|ending| ending.name()).collect::<Vec<_>>(),
            "connected": figures.connected,
            "refused": refused,
            "failed": figures.failed,
            "setup_ms": milliseconds(&figures.setup),
            "messages": {
                "sent": figures.sent,
                "sent_per_second": self.per_second(figures.sent),
                "received": figures.received,
                "owed": self.account.owed,
                "lost": self.account.lost,
                "wrong_user": figures.wrong_user,
                "duplicates": figures.duplicates,
                "out_of_order": figures.out_of_order,
                "strange": figures.strange,
                "errors": figures.errors,
                "first_error": figures.first_error,
            },
            "latency_ms": milliseconds(&figures.latency),
            "ended": ends.collect::<Vec<_>>(),
            "failures": self.failures(),
        })
    }

    fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.took.as_secs_f64().max(f64::EPSILON)
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (figures, Account { owed, lost }) = (self.figures, self.account);
        writeln!(f, "connected      {}", grouped(figures.connected))?;
        for (status, count) in &figures.refused {
            writeln!(f, "refused        {}, with {status}", grouped(*count))?;
        }
        for (why, count) in &figures.failed {
            writeln!(f, "failed         {}: {why}", grouped(*count))?;
        }
        writeln!(f, "set-up         {}", times(&figures.setup))?;
        let (sent, received) = (figures.sent, figures.received);
        writeln!(f, "sent           {}, {:.1} a second", grouped(sent), self.per_second(sent))?;
        writeln!(f, "received       {}, {:.1} a second", grouped(received), self.per_second(received))?;
        writeln!(f, "end to end     {}", times(&figures.latency))?;
        writeln!(f, "lost           {} of {} owed", grouped(lost), grouped(owed))?;
        let Figures { wrong_user, duplicates, out_of_order, .. } = figures;
        writeln!(f, "wrong user     {wrong_user}, duplicates {duplicates}, out of order {out_of_order}")?;
        if let Some(text) = &figures.first_error {
            writeln!(f, "server's errors {}, the first: {text}", grouped(figures.errors))?;
        }
        if figures.strange > 0 {
            writeln!(f, "strange texts  {}", grouped(figures.strange))?;
        }
        writeln!(f, "ends")?;
        for ((how, code), count) in &figures.ends {
            let code = code.map_or("no code".to_owned(), |code| code.to_string());
            writeln!(f, "  {how:<12} {code:<8} {:>9}", grouped(*count))?;
        }
        Ok(())
    }
}

fn milliseconds(times: &Histogram<u64>) -> Value {
    if times.is_empty() {
        return Value::Null;
    }
    let in_ms = |nanoseconds: u64| json!(nanoseconds as f64 / 1e6);
    let shares = SHARES.map(|(name, _, share)| (name.to_owned(), in_ms(times.value_at_quantile(share))));
    let max = ("max".to_owned(), in_ms(times.max()));
    Value::Object(shares.into_iter().chain([max]).collect())
}

fn times(times: &Histogram<u64>) -> String {
    if times.is_empty() {
        return "nothing to measure".to_owned();
    }
    let shares = SHARES.map(|(_, name, share)| format!("{name} {}", span(times.value_at_quantile(share))));
    format!("{}, max {}", shares.join(", "), span(times.max()))
}

fn span(nanoseconds: u64) -> String {
    match nanoseconds as f64 / 1e6 {
        ms if ms < 1.0 => format!("{:.0} µs", ms * 1e3),
        ms if ms < 1e3 => format!("{ms:.1} ms"),
        ms => format!("{:.2} s", ms / 1e3),
    }
}

/// With a comma for each thousand.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
