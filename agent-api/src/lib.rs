//! Everything Octavia can see of an amphora.

mod desired;
mod file;
pub mod limits;
mod monitor;
mod paths;
mod refused;
pub mod understood;
mod validate;

pub use desired::{
    Algorithm, BadName, Desired, Listener, Member, Name, Persistence, Pool, Protocol,
};
pub use file::Error;
pub use ipnet::IpNet;
pub use monitor::{HttpProbe, Monitor, Probe};
pub use paths::Paths;
pub use refused::Refused;
pub use understood::Understood;
pub use validate::{Fault, Invalid, Place, Step, Unfit};
