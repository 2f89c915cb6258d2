//! Paths as text.

use clap::Args;
use overway_scheduler::api::StepBody;

/// Which routes, by class and tenant.
#[derive(Debug, Args)]
pub(crate) struct TrafficArgs {
    /// The class of traffic: realtime, interactive or bulk.
    #[arg(long, value_name = "CLASS", value_parser = ["realtime", "interactive", "bulk"])]
    pub(crate) class: Option<String>,
    /// The tenant or policy that the traffic goes under, by name; without it any relay may be on the path.
    #[arg(long, value_name = "POLICY", visible_alias = "policy")]
    pub(crate) tenant: Option<String>,
}

impl TrafficArgs {
    /// As query parameters.
    pub(crate) fn query(&self) -> impl Iterator<Item = (&str, &str)> {
        let class = self.class.as_deref().map(|class| ("class", class));
        class.into_iter().chain(self.tenant.as_deref().map(|tenant| ("tenant", tenant)))
    }
}

/// The relays between, and the parallel link where it is not the first.
pub(crate) fn path(steps: &[StepBody]) -> String {
    let step = |step: &StepBody| match step.link {
        0 => step.name.clone(),
        link => format!("{}/{link}", step.name),
    };
    let steps: Vec<String> = steps.iter().map(step).collect();
    match steps.as_slice() {
        [] => "none".to_owned(),
        [only] => format!("direct to {only}"),
        [..] => format!("via {}", steps.join(", ")),
    }
}
