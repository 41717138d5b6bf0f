//! Everything Octavia can see of an amphora; for now the document that says what is wanted.

mod desired;
mod file;
pub mod limits;
mod validate;

pub use desired::{
    Algorithm, BadName, Desired, Listener, Member, Name, Persistence, Pool, Protocol,
};
pub use file::Error;
pub use ipnet::IpNet;
pub use validate::{Fault, Invalid, Place, Step, Unfit};
