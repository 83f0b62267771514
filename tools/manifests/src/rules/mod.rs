//! The rules of the house. Each takes what was rendered and what the code says, and returns a sentence for every place
//! where it is broken.

mod copies;
mod identity;
mod names;
mod network;
mod pods;
mod references;
mod security;
mod settings;

pub use copies::{
    autoscalers_scale_what_is_there, budgets_leave_room_to_drain, connections_suffice,
    only_two_doors_are_open, requests_fit_on_a_laptop,
};
pub use identity::{everything_is_labelled, images_are_of_this_version, what_cannot_change_has_no_version};
pub use names::{selectors_mean_pods, services_lead_to_ports};
pub use network::{arrows, arrows_are_those_of_the_blueprints, policies_lead_somewhere};
pub use pods::{
    grace_is_longer_than_the_drain, probes_ask_three_questions, resources_are_asked_for_and_bounded,
};
pub use references::{secrets, whatever_is_there_is_used, whatever_is_used_is_there};
pub use security::{
    containers_are_restricted, nobody_has_a_token, only_what_migrates_owns_the_schema, what_sells_goes_first,
};
pub use settings::{addresses_are_services, keys_are_read, ports_are_listeners, required_keys_are_set};

use crate::{Code, Rendering};

/// A rule of the house.
pub type Rule = fn(&Rendering, &Code) -> Vec<String>;
