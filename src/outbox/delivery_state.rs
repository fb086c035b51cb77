//! How far coco has delivered to each external target, and the delivery error that stops it, if
//! any.

use pgrx::datum::TimestampWithTimeZone;
use std::time::Duration;

use crate::pg::acting_role::RoleGuard;
use crate::pg::error::Result;
use crate::pg::invalidation;
use crate::pg::spi::{self, arg};
use coco_core::backoff;
use coco_core::change::{DeliveryError, ErrorScope};

/// The delivery status of one target.
#[derive(Clone, Copy, Debug)]
pub struct DeliveryStatus {
    /// The position up to which all outbox entries are delivered.
    pub sent: i64,
    /// How long delivery pauses, after an error of this target or of its server.
    pub wait: Duration,
    /// Set during an initial load: the last position of the rows that a process keeps in its
    /// initial-load buffer, and delivers itself.
    pub filling: Option<i64>,
}

/// Reads the status of a target; `None` if the target no longer exists.
pub fn delivery_status(target: i32) -> Result<Option<DeliveryStatus>> {
    let _as = RoleGuard::extension_owner()?;
    let found = spi::select(
        "select d.sent,
                greatest(0, coalesce(extract(epoch from (
                  select max(o.next_retry)
                    from coco_internal.delivery_state o join coco_internal.target u on u.id = o.target
                   where o.next_retry is not null
                     and (o.target = d.target or o.server_wide and u.server = t.server)
                ) - clock_timestamp()), 0))::float8,
                d.initial_load_until
           from coco_internal.delivery_state d join coco_internal.target t on t.id = d.target
          where d.target = $1",
        &[arg(target)],
        |r| {
            Ok(DeliveryStatus {
                sent: spi::required(r, 1)?,
                wait: backoff::plausible_wait(
                    Duration::try_from_secs_f64(spi::required(r, 2)?).unwrap_or_default(),
                    LONGEST_ASKED.mul_f64(1.2),
                ),
                filling: r.get(3)?,
            })
        },
    )?;
    Ok(found.into_iter().next())
}

/// The delivery state that coco shows to users.
pub struct DeliveryState {
    pub sent: i64,
    pub filling: Option<i64>,
    pub sent_at: Option<TimestampWithTimeZone>,
    pub attempts: i32,
    pub next_retry: Option<TimestampWithTimeZone>,
    pub sqlstate: Option<String>,
    pub message: Option<String>,
    pub detail: Option<String>,
    pub hint: Option<String>,
    pub verified_at: Option<TimestampWithTimeZone>,
}

/// Reads the delivery state of a target; `None` if the target no longer exists.
pub fn delivery_state(target: i32) -> Result<Option<DeliveryState>> {
    let _as = RoleGuard::extension_owner()?;
    let found = spi::select(
        "select sent, initial_load_until, sent_at, attempts, next_retry, sqlstate, message, detail, hint,
                verified_at
           from coco_internal.delivery_state where target = $1",
        &[arg(target)],
        |r| {
            Ok(DeliveryState {
                sent: spi::required(r, 1)?,
                filling: r.get(2)?,
                sent_at: r.get(3)?,
                attempts: spi::required(r, 4)?,
                next_retry: r.get(5)?,
                sqlstate: r.get(6)?,
                message: r.get(7)?,
                detail: r.get(8)?,
                hint: r.get(9)?,
                verified_at: r.get(10)?,
            })
        },
    )?;
    Ok(found.into_iter().next())
}

/// Records that all entries up to a position are delivered. Clears the delivery error.
pub fn note_sent(target: i32, upto: i64) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    spi::execute(
        "update coco_internal.delivery_state
            set sent = greatest(sent, $2), sent_at = clock_timestamp(), attempts = 0, server_wide = false,
                failed_at = null, next_retry = null,
                sqlstate = null, message = null, detail = null, hint = null
          where target = $1",
        &[arg(target), arg(upto)],
    )?;
    Ok(())
}

/// Records that a target has been compared with the ledger, and that no row differed.
pub fn note_verified(target: i32) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    spi::execute(
        "update coco_internal.delivery_state set verified_at = clock_timestamp() where target = $1",
        &[arg(target)],
    )?;
    Ok(())
}

/// Records that this process keeps the rows at these positions in its initial-load buffer, and
/// delivers them itself. The mark stays until all of them are delivered or in the outbox. A process
/// that finds the mark without the process that set it exports all rows again.
pub fn note_initial_load(target: i32, first: i64, last: i64) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    spi::execute(
        "update coco_internal.delivery_state set sent = greatest(sent, $2 - 1), initial_load_until = $3 where target = $1",
        &[arg(target), arg(first), arg(last)],
    )?;
    Ok(())
}

/// Records that all rows of the initial load are delivered or in the outbox.
pub fn note_initial_load_sent(target: i32) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    spi::execute(
        "update coco_internal.delivery_state set initial_load_until = null where target = $1 and initial_load_until is not null",
        &[arg(target)],
    )?;
    Ok(())
}

/// Records whether coco manages a target: coco may remove only a target that it created. Set the
/// mark before coco creates the target, so that a crash leaves no target that coco cannot remove.
pub fn note_made(target: i32, made: bool) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    spi::execute(
        "update coco_internal.target set managed = $2 where id = $1 and managed <> $2",
        &[arg(target), arg(made)],
    )?;
    invalidation::note_change()
}

/// The longest delay before coco tries a target again after a delivery error, unless the server
/// requests another delay.
const LONGEST: Duration = Duration::from_secs(300);

/// The longest delay that a server can request. coco adds up to a fifth of it at random.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);

/// Returns the name of a target for messages.
pub fn delivery_error(target: i32) -> Result<String> {
    let _as = RoleGuard::extension_owner()?;
    let shown = spi::scalar(
        "select format('target %I on server %I', external, server) from coco_internal.target where id = $1",
        &[arg(target)],
    )?;
    Ok(shown.unwrap_or_else(|| "a target that no longer exists".to_owned()))
}

/// Records a delivery error, and when coco tries the target again.
pub fn record_error(target: i32, trouble: &DeliveryError) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    let attempts: i32 = spi::scalar(
        "select attempts + 1 from coco_internal.delivery_state where target = $1",
        &[arg(target)],
    )?
    .unwrap_or(1);
    let delay = backoff::retry_delay(attempts.max(1) as u32).min(LONGEST);
    let delay = trouble
        .retry_after
        .map_or(delay, |after| after.min(LONGEST_ASKED).max(Duration::from_millis(1)));
    spi::execute(
        "update coco_internal.delivery_state
            set attempts = $2, server_wide = $3, failed_at = clock_timestamp(),
                next_retry = clock_timestamp() + make_interval(secs => $4 * (1 + random() / 5)),
                sqlstate = $5, message = $6, detail = $7, hint = $8
          where target = $1",
        &[
            arg(target),
            arg(attempts),
            arg(trouble.scope == ErrorScope::Server),
            arg(delay.as_secs_f64()),
            arg(trouble.sqlstate.as_str()),
            arg(trouble.message.as_str()),
            arg(trouble.detail.clone()),
            arg(trouble.hint.clone()),
        ],
    )?;
    Ok(())
}

/// Clears the retry times of a flow's targets, so that coco tries them at once.
pub fn retry_at_once(flow: &str) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    spi::execute(
        "update coco_internal.delivery_state d set next_retry = null
           from coco_internal.target t
          where t.id = d.target and d.next_retry is not null
            and (t.flow = $1 or d.server_wide and t.server in (
                  select o.server from coco_internal.target o where o.flow = $1 and o.server is not null))",
        &[arg(flow)],
    )?;
    Ok(())
}

/// Returns the oldest delivery error of a flow's targets, with the name of its target.
pub fn record_target_error(flow: &str) -> Result<Option<(String, DeliveryError)>> {
    let _as = RoleGuard::extension_owner()?;
    let found = spi::select(
        "select format('%I on server %I', t.external, t.server), d.server_wide, d.sqlstate, d.message,
                d.detail, d.hint
           from coco_internal.delivery_state d join coco_internal.target t on t.id = d.target
          where t.flow = $1 and d.message is not null order by d.failed_at limit 1",
        &[arg(flow)],
        |r| {
            let sqlstate: String = spi::required(r, 3)?;
            let message: String = spi::required(r, 4)?;
            let mut trouble = match spi::required::<bool>(r, 2)? {
                true => DeliveryError::server(&sqlstate, message),
                false => DeliveryError::target(&sqlstate, message),
            };
            trouble.detail = r.get(5)?;
            trouble.hint = r.get(6)?;
            Ok((spi::required::<String>(r, 1)?, trouble))
        },
    )?;
    Ok(found.into_iter().next())
}
