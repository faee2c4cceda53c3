//! `/v1/agent`: registering services and checks on this agent, reporting TTL checks, maintenance.
//!
//! - Source: http-api.md §5 and §6. Rules of the bodies are in [`bodies`]; what only the agent's
//!   state decides (an unknown service, a check without TTL) the node answers.

use super::*;
use terraform_core::catalog::model::CheckStatus;
use terraform_core::id::{CheckId, ServiceId};
use terraform_core::local::Maintenance;
use terraform_core::local::definition::CheckDefinition;

impl Api {
    pub(super) async fn agent_service_register(&self, request: &ApiRequest<'_>) -> Handled {
        options::refuse_namespace(request)?;
        let replace = match request.params.get("replace-existing-checks") {
            "" => request.params.has("replace-existing-checks"),
            value => value == "true",
        };
        let definition = bodies::service::definition(request.body)?;
        for check in &definition.checks {
            self.allow_check(check)?;
        }
        let body = RequestBody::RegisterService {
            definition: Box::new(definition),
            replace_existing_checks: replace,
        };
        self.agent_done(options::local(request), body).await
    }

    pub(super) async fn agent_service_deregister(&self, request: &ApiRequest<'_>) -> Handled {
        options::refuse_namespace(request)?;
        if request.argument.is_empty() {
            return Err(Reply::text(500, "ServiceID missing"));
        }
        // An id that cannot exist is unknown, and removing an unknown one is no error.
        let Ok(id) = ServiceId::parse(request.argument) else { return Ok(Reply::empty()) };
        self.agent_done(options::local(request), RequestBody::DeregisterService(id)).await
    }

    pub(super) async fn agent_check_register(&self, request: &ApiRequest<'_>) -> Handled {
        options::refuse_namespace(request)?;
        let definition = bodies::check::node_check(request.body)?;
        self.allow_check(&definition)?;
        let body = RequestBody::RegisterCheck(Box::new(definition));
        self.agent_done(options::local(request), body).await
    }

    pub(super) async fn agent_check_deregister(&self, request: &ApiRequest<'_>) -> Handled {
        options::refuse_namespace(request)?;
        if request.argument.is_empty() {
            return Err(Reply::text(500, "CheckID missing"));
        }
        let Ok(id) = CheckId::parse(request.argument) else { return Ok(Reply::empty()) };
        self.agent_done(options::local(request), RequestBody::DeregisterCheck(id)).await
    }

    pub(super) async fn agent_check_turn(
        &self,
        endpoint: Endpoint,
        request: &ApiRequest<'_>,
    ) -> Handled {
        let status = if endpoint == Endpoint::AgentCheckPass {
            CheckStatus::Passing
        } else if endpoint == Endpoint::AgentCheckWarn {
            CheckStatus::Warning
        } else {
            CheckStatus::Critical
        };
        let output = request.params.get("note").to_owned();
        self.update_ttl(request, status, output).await
    }

    pub(super) async fn agent_check_update(&self, request: &ApiRequest<'_>) -> Handled {
        let (status, output) = bodies::check::update(request.body)?;
        self.update_ttl(request, status, output).await
    }

    async fn update_ttl(
        &self,
        request: &ApiRequest<'_>,
        status: CheckStatus,
        output: String,
    ) -> Handled {
        options::refuse_namespace(request)?;
        let unknown = |_| {
            let text = format!("CheckID {:?} does not have associated TTL", request.argument);
            Reply::text(500, text)
        };
        let check = CheckId::parse(request.argument).map_err(unknown)?;
        let body = RequestBody::UpdateTtl { check, status, output };
        self.agent_done(options::local(request), body).await
    }

    pub(super) async fn agent_maintenance(&self, request: &ApiRequest<'_>) -> Handled {
        self.maintain(request, None).await
    }

    pub(super) async fn agent_service_maintenance(&self, request: &ApiRequest<'_>) -> Handled {
        if request.argument.is_empty() {
            return Err(Reply::text(400, "Missing service ID"));
        }
        options::refuse_namespace(request)?;
        let unknown = |_| {
            let text = format!("No service registered with ID {:?}", request.argument);
            Reply::text(404, text)
        };
        self.maintain(request, Some(ServiceId::parse(request.argument).map_err(unknown))).await
    }

    /// Puts the service, or else the node, into maintenance or takes it out. What is wrong with
    /// the parameters is told before what is wrong with the service.
    async fn maintain(
        &self,
        request: &ApiRequest<'_>,
        service: Option<Result<ServiceId, Reply>>,
    ) -> Handled {
        if !request.params.has("enable") {
            return Err(Reply::text(400, "Missing value for enable"));
        }
        let text = request.params.get("enable");
        let invalid = || Reply::text(400, format!("Invalid value for enable: {text:?}"));
        let enable = target::truth(text).ok_or_else(invalid)?;
        let reason = request.params.get("reason").to_owned();
        let maintenance = Maintenance { service: service.transpose()?, enable, reason };
        let body = RequestBody::Maintenance(Box::new(maintenance));
        match self.done(options::local(request), body).await {
            Ok(()) => Ok(Reply::empty()),
            Err(RequestError::NotFound(text)) => Err(Reply::text(404, text)),
            Err(error) => Err(Reply::error(&error)),
        }
    }

    fn allow_check(&self, check: &CheckDefinition) -> Result<(), Reply> {
        if check.kind.starts_programs() && !self.settings.remote_script_checks {
            let text = "Scripts are disabled on this agent from remote calls; \
                        to enable, configure 'enable_script_checks' to true";
            return Err(Reply::text(500, text));
        }
        Ok(())
    }
}
