//! The public gRPC API: `fiberlb.v1`.
//!
//! Every call goes the same way: who asks ([`principal`]), what the request means ([`convert`], which collects every
//! violation), what the tree would become ([`edit`], pure), one atomic write ([`Writer`](crate::catalog::Writer)),
//! and what is answered ([`render`], pure). Reads are answered from the model alone; what only the plugin that leads knows, the others ask it
//! ([`peers`]).

mod apply;
mod convert;
mod edit;
mod errors;
mod limits;
mod list;
mod load_balancer;
mod mask;
pub mod networks;
mod nodes;
mod ovn;
mod peers;
pub mod principal;
mod render;
mod resource;
mod services;
mod violations;
mod watch;

pub use limits::Limits;
pub use peers::Peers;
pub use services::{Api, Inner};
