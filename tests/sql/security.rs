//! Attacks by ordinary roles. Each is refused or harmless: nobody gains a right, no process ends by a signal, and what
//! belongs to others goes on. `make test-security` runs this suite with the others about trust.

#[path = "security/acting_as_owner.rs"]
mod acting_as_owner;
#[path = "security/attacks.rs"]
mod attacks;
#[cfg(feature = "http")]
#[path = "security/crossing.rs"]
mod crossing;
#[path = "security/documented.rs"]
mod documented;
#[path = "security/fairness.rs"]
mod fairness;
#[path = "security/kinds.rs"]
mod kinds;
#[path = "security/views.rs"]
mod views;
