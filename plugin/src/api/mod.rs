//! The public gRPC API: `fiberlb.v1`.
//!
//! Every call takes the same path: the caller ([`principal`]), the meaning of the request ([`convert`], which
//! collects every violation), the resulting tree ([`edit`], pure), one atomic write
//! ([`Writer`](crate::catalog::Writer)), and the answer ([`render`], pure). Reads are served from the model
//! alone; followers ask the leader for what only it knows ([`peers`]).

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
