//! What is due to a target outside this database: read for it, with what it is reached.

use std::sync::Arc;
use std::time::Duration;

use crate::catalog::model::{External, Flow, Target as Declared};
use crate::flows::cache;
use crate::outbox::change_batch::{BatchSize, ChangeBatch};
use crate::outbox::initial_load_buffer::InitialLoadBuffer;
use crate::outbox::queue::{self, ReadRequest};
use crate::outbox::{delivery_state, foreign_server};
use crate::pg::error::Error;
use crate::pg::subtransaction;
use crate::update::run;
use crate::workers::delivery::target_channel::ResolvedTarget;
use crate::workers::transaction::{TransactionError, transaction};
use coco_connectors::targets;
use coco_connectors::targets::Connector;
use coco_connectors::targets::options::{Access, Options};
use coco_core::change::{DeliveryError, TargetSchema};

/// Changes of a first batch, at most: the connection has nothing to do while it is read.
const FIRST: usize = 5000;

/// Changes that are read at once beside a batch that is on its way, where more can be added.
const PIECE: usize = 5000;

/// What is to be done for a target now.
pub enum NextAction {
    Nothing,
    Wait(Duration),
    DeliveryError(DeliveryError),
    Batch(ChangeBatch, ResolvedTarget),
}

/// The external targets of a flow.
pub fn externals(flow: &str) -> Result<Vec<i32>, TransactionError> {
    transaction(|| {
        let ready = cache::runnable_flow(flow)?;
        let external = |t: &&Declared| t.external.is_some() && t.relation.is_some();
        Ok(ready.flow.targets.iter().filter(external).map(|t| t.id).collect())
    })
}

pub fn find_external(flow: &Flow, target: i32) -> Option<(&Declared, &External)> {
    let declared = flow.targets.iter().find(|t| t.id == target)?;
    Some((declared, declared.external.as_ref()?))
}

/// With what a target is reached that nothing was sent to, and that may be sent to now. What else hinders it shows
/// when there is something to send.
pub fn never_sent(flow: &str, target: i32) -> Result<Option<ResolvedTarget>, Error> {
    let ready = cache::runnable_flow(flow)?;
    let Some((declared, external)) = find_external(&ready.flow, target) else { return Ok(None) };
    let new = |state: delivery_state::DeliveryStatus| {
        state.sent == 0 && state.wait.is_zero() && !ready.flow.paused
    };
    match delivery_state::delivery_status(target)?.is_some_and(new) {
        true => Ok(resolve_target(&ready.flow, declared, external).ok()),
        false => Ok(None),
    }
}

/// What is to be sent, and with what. `next`: what was read already, and for which shape. `interrupted`: who was to send
/// what the outbox does not have is gone. Counts what is refused, since it cannot be encoded.
pub fn next_action(
    flow: &str,
    target: i32,
    next: Option<(ChangeBatch, Arc<TargetSchema>)>,
    held: Option<&mut InitialLoadBuffer>,
    interrupted: &mut bool,
    refused: &mut i64,
) -> Result<NextAction, Error> {
    let ready = cache::runnable_flow(flow)?;
    let Some((declared, external)) = find_external(&ready.flow, target) else {
        return Ok(NextAction::Nothing);
    };
    let Some(state) = delivery_state::delivery_status(target)? else {
        return Ok(NextAction::Nothing);
    };
    *interrupted |= state.filling.is_some() && held.is_none();
    if !state.wait.is_zero() {
        return Ok(NextAction::Wait(state.wait));
    }
    let reached = match resolve_target(&ready.flow, declared, external) {
        Ok(reached) => reached,
        Err(error) => return Ok(NextAction::DeliveryError(delivery_error(error))),
    };
    let batch = match next {
        // Of another shape it is not any more: the outbox has been made anew.
        Some((batch, read_for)) if *read_for == reached.shape => Some(batch),
        _ if held.as_ref().is_some_and(|held| !held.fits(&reached.shape)) => {
            return Err(run::logic_changed_error(&ready.flow));
        }
        _ => {
            let (encoding, size) = (reached.connector.encoding, first_size(reached.connector));
            match held {
                Some(held) => held.read(&ready.flow, declared, encoding, size)?,
                None => {
                    let wanted = ReadRequest { after: state.sent, refused: true, encoding, size };
                    let read = queue::read_next(&ready.flow, declared, external, wanted)?;
                    *refused += read.refused;
                    read.batch
                }
            }
        }
    };
    Ok(batch.map_or(NextAction::Nothing, |batch| NextAction::Batch(batch, reached)))
}

fn delivery_error(error: Error) -> DeliveryError {
    let sqlstate = subtransaction::sqlstate(error.code as i32);
    let mut trouble = DeliveryError::target(&sqlstate, error.message);
    trouble.detail = error.detail;
    trouble.hint = error.hint;
    trouble
}

fn size(connector: &Connector) -> BatchSize {
    BatchSize { changes: connector.batch.changes, bytes: connector.batch.bytes }
}

/// Of a batch before which there is none on its way.
fn first_size(connector: &Connector) -> BatchSize {
    let BatchSize { changes, bytes } = size(connector);
    BatchSize { changes: changes.min(FIRST), bytes }
}

/// Reads out of the outbox what comes after a batch that is on its way: by the time that one is back.
pub fn batch_after(
    flow: &str,
    target: i32,
    connector: &Connector,
    batch: &ChangeBatch,
    refused: &mut i64,
) -> Result<Option<ChangeBatch>, TransactionError> {
    let BatchSize { changes, bytes } = size(connector);
    let changes = changes.min(2 * batch.positions.len().max(FIRST));
    transaction(|| {
        let ready = cache::runnable_flow(flow)?;
        let Some((declared, external)) = find_external(&ready.flow, target) else {
            return Ok(None);
        };
        let size = BatchSize { changes, bytes };
        let encoding = connector.encoding;
        let wanted = ReadRequest { after: batch.upto, refused: false, encoding, size };
        let read = queue::read_next(&ready.flow, declared, external, wanted)?;
        *refused += read.refused;
        Ok(read.batch)
    })
}

/// Reads more of what a first fill has to send, for a batch that begins with `next`; `None` where that is full, or nothing
/// is left.
pub fn grow_batch(
    flow: &str,
    target: i32,
    connector: &Connector,
    held: &mut InitialLoadBuffer,
    next: Option<&ChangeBatch>,
) -> Result<Option<ChangeBatch>, TransactionError> {
    let most = size(connector);
    let Some(BatchSize { changes, bytes }) = next.map_or(Some(most), |next| most.less(next)) else {
        return Ok(None);
    };
    transaction(|| {
        let ready = cache::runnable_flow(flow)?;
        let Some((declared, _)) = find_external(&ready.flow, target) else { return Ok(None) };
        // Of another shape it is not to be sent: `due` says so.
        if !held.fits(&foreign_server::target_schema(flow, declared)?) {
            return Ok(None);
        }
        let piece = BatchSize { changes: changes.min(PIECE), bytes };
        held.read(&ready.flow, declared, connector.encoding, piece)
    })
}

/// What a connector is to know of a target, and what it reaches it with.
pub fn resolve_target(
    flow: &Flow,
    declared: &Declared,
    external: &External,
) -> Result<ResolvedTarget, Error> {
    let name = foreign_server::connector_for(&external.server, flow.owner)?;
    let connector = targets::connector(&name).ok_or_else(|| {
        Error::new(
            pgrx::PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("this build of coco has no connector {name}"),
        )
    })?;
    let given = foreign_server::server_options(&external.server, flow.owner)?;
    let options = |pairs: Vec<(String, String)>| Options(pairs.into_iter().collect());
    let access =
        Access { server: options(given.server), user: options(given.user), trusted: given.trusted };
    let shape = foreign_server::target_schema(&flow.name, declared)?;
    Ok(ResolvedTarget { shape, connector, access, made: declared.made })
}
