#![doc = include_str!("../README.md")]

mod address;
pub mod calls;
pub mod code;
pub mod kubectl;
pub mod pod;
mod quantity;
pub mod rendering;
pub mod rules;

pub use code::Code;
pub use kubectl::{Kubectl, Renderer};
pub use quantity::quantity;
pub use rendering::{Rendering, Workload};
pub use rules::Rule;
