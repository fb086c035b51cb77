//! Where an external target is, and how to reach it: its schema, its connector, and the options of
//! its server and user mapping.

use crate::catalog::model::{External, Flow, Target};
use crate::flows::cache;
use crate::outbox::foreign_server;
use crate::pg::error::Error;
use crate::workers::transaction::{TransactionError, transaction};
use coco_connectors::targets::options::{Access, Options};
use coco_connectors::targets::{self, Connector};
use coco_core::change::TargetSchema;

/// The schema of a target, and the options to reach it.
pub struct ResolvedTarget {
    pub schema: TargetSchema,
    pub connector: &'static Connector,
    pub access: Access,
    /// Whether coco has recorded that it manages the target.
    pub made: bool,
}

/// Returns the external targets of a flow.
pub fn external_targets(flow: &str) -> Result<Vec<i32>, TransactionError> {
    transaction(|| {
        let ready = cache::runnable_flow(flow)?;
        let external = |t: &&Target| t.external.is_some() && t.relation.is_some();
        Ok(ready.flow.targets.iter().filter(external).map(|t| t.id).collect())
    })
}

/// Returns an external target of a flow; `None` if the flow no longer has it.
pub fn find_external(flow: &Flow, target: i32) -> Option<(&Target, &External)> {
    let declared = flow.targets.iter().find(|t| t.id == target)?;
    Some((declared, declared.external.as_ref()?))
}

/// Returns how to reach a target. Checks the rights of the flow's owner.
pub fn resolve_target(
    flow: &Flow,
    declared: &Target,
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
    let schema = foreign_server::target_schema(&flow.name, declared)?;
    Ok(ResolvedTarget { schema, connector, access, made: declared.made })
}
