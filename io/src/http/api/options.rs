//! What every endpoint reads from parameters and headers: token, datacenter, consistency, waiting.
//!
//! - Source: http-api.md §1.5–§1.11. A malformed value gets its documented 400 first; a good one
//!   of a feature that is not built gets 501 by name.

use super::ApiRequest;
use crate::duration;
use crate::http::parse::Field;
use crate::http::render::Place;
use crate::http::respond::{Meta, Reply};
use std::time::Duration;
use terraform_core::catalog::address::Seen;
use terraform_core::catalog::query::{Consistency, MetaFilter};
use terraform_core::filter::{Filter, FilterError, Row};
use terraform_core::id::{Datacenter, ModifyIndex};
use terraform_core::node::request::{RequestContext, RequestError};

/// Which parameters an endpoint would act on; those it does not act on are ignored, as documented.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reads {
    /// `index`.
    pub(super) blocks: bool,
    /// `cached`.
    pub(super) caches: bool,
    /// Whether `ns` is refused.
    pub(super) refuses_namespace: bool,
}

/// How a read is to be done.
#[derive(Clone, Debug)]
pub(super) struct ReadOptions {
    /// The context of the query.
    pub(super) context: RequestContext,
    /// How old a stale answer may be.
    pub(super) max_stale: Option<Duration>,
    /// Whether a kept answer will do.
    pub(super) cached: bool,
}

/// The options of a read.
pub(super) fn read(request: &ApiRequest<'_>, reads: Reads) -> Result<ReadOptions, Reply> {
    let params = request.params;
    if reads.refuses_namespace {
        refuse_namespace(request)?;
    }
    let mut max_stale = max_stale(params.get("max_stale"))?;
    let stale = params.has("stale") || max_stale.is_some();
    let cached = params.has("cached");
    let conflict = |mode| {
        let text = format!("Cannot specify ?{mode} with ?consistent, conflicting semantics.");
        Err(Reply::text(400, text))
    };
    let consistency = match (params.has("consistent"), stale) {
        (true, true) => return conflict("stale"),
        (true, false) if cached => return conflict("cached"),
        (true, false) => Consistency::Consistent,
        (false, true) => Consistency::Stale,
        (false, false) => match request.rules.discovery_max_stale {
            Some(limit) if discovers(request) => {
                max_stale = Some(limit);
                Consistency::Stale
            }
            Some(_) | None => Consistency::Leader,
        },
    };
    check_cache_control(request.field(Field::CacheControl))?;
    let (index, wait) = waiting(request, request.rules.wait_default)?;
    let mut context = write(request)?;
    context.consistency = consistency;
    if reads.blocks {
        context.min_index = ModifyIndex::new(index);
        context.wait = (index > 0).then_some(wait);
    }
    Ok(ReadOptions { context, max_stale, cached: reads.caches && cached })
}

/// Whether a read that names no mode may be answered by any server, if the settings say so.
fn discovers(request: &ApiRequest<'_>) -> bool {
    let is_discovery =
        ["/v1/catalog/", "/v1/health/"].iter().any(|it| request.timed.pattern.starts_with(it));
    is_discovery && !request.params.has("leader")
}

/// The context of a write or a local operation: token and datacenter.
pub(super) fn write(request: &ApiRequest<'_>) -> Result<RequestContext, Reply> {
    let datacenter = foreign(request.params.get("dc"), request.datacenter)?;
    Ok(RequestContext { datacenter, ..local(request) })
}

/// The context of an agent endpoint, which no datacenter is asked for.
pub(super) fn local(request: &ApiRequest<'_>) -> RequestContext {
    let (token, source) = (token(request), request.source.copied());
    RequestContext { token, source, ..RequestContext::default() }
}

/// The datacenter that `dc` names, if it is another than the agent's own.
pub(super) fn foreign(dc: &str, own: &Datacenter) -> Result<Option<Datacenter>, Reply> {
    if dc.is_empty() {
        return Ok(None);
    }
    let named = Datacenter::parse(dc).map_err(|_| Reply::error(&RequestError::NoPath))?;
    Ok(Some(named).filter(|named| named != own))
}

/// The datacenter that answers: what `dc` names, or the agent's own. A name that is refused
/// elsewhere stands for the own one.
pub(super) fn answering(request: &ApiRequest<'_>) -> Place {
    let named = foreign(request.params.get("dc"), request.datacenter);
    place(request, named.ok().flatten().as_ref().unwrap_or(request.datacenter))
}

/// A datacenter, and from where the agent looks at it.
pub(super) fn place(request: &ApiRequest<'_>, datacenter: &Datacenter) -> Place {
    let seen = Seen::of(datacenter, request.datacenter, request.rules.translates_wan_addresses);
    Place { datacenter: datacenter.clone(), seen }
}

/// Namespaces belong to a paid edition (http-api.md §1.4).
pub(super) fn refuse_namespace(request: &ApiRequest<'_>) -> Result<(), Reply> {
    let what = if !request.params.get("ns").is_empty() {
        "query parameter: \"ns\""
    } else if request.field(Field::Namespace).is_some_and(|name| !name.is_empty()) {
        "header: \"X-Consul-Namespace\""
    } else {
        return Ok(());
    };
    let rule = "Namespaces are a Consul Enterprise feature";
    Err(Reply::text(400, format!("Bad request: Invalid {what} - {rule}")))
}

/// The pairs of `node-meta`; one without `:` wants an empty value.
pub(super) fn node_meta(request: &ApiRequest<'_>) -> MetaFilter {
    let pair = |text: &str| {
        let (key, value) = text.split_once(':').unwrap_or((text, ""));
        (key.to_owned(), value.to_owned())
    };
    request.params.all("node-meta").map(pair).collect()
}

/// The expression of `filter`, if there is one.
pub(super) fn filter<R: Row>(request: &ApiRequest<'_>) -> Result<Option<Filter<R>>, FilterError> {
    let text = request.params.get("filter");
    if text.is_empty() { Ok(None) } else { Filter::parse(text).map(Some) }
}

/// The same for a read with meta headers, which the servers would refuse.
pub(super) fn read_filter<R: Row>(request: &ApiRequest<'_>) -> Result<Option<Filter<R>>, Reply> {
    filter(request).map_err(|error| bad_filter(&error).with_meta(Meta::zero()))
}

/// The answer to a filter that is none.
pub(super) fn bad_filter(error: &FilterError) -> Reply {
    Reply::text(500, format!("Failed to create boolean expression evaluator: {error}"))
}

/// The secret: parameter, then header, then bearer authorisation (http-api.md §1.11).
fn token(request: &ApiRequest<'_>) -> Option<String> {
    let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let header = || request.field(Field::Token).and_then(given);
    let bearer = || {
        let mut words = request.field(Field::Authorization)?.split_whitespace();
        let scheme = words.next()?;
        let secret = words.next()?;
        scheme.eq_ignore_ascii_case("bearer").then(|| secret.to_owned())
    };
    given(request.params.get("token")).or_else(header).or_else(bearer)
}

fn max_stale(text: &str) -> Result<Option<Duration>, Reply> {
    if text.is_empty() {
        return Ok(None);
    }
    let bad = |_| Reply::text(400, format!("Invalid max_stale value {text:?}"));
    let limit = signed_duration(text).map_err(bad)?;
    Ok(Some(limit).filter(|limit| !limit.is_zero()))
}

/// What a read waits for: an index, 0 for none, and how long, which is `default` if it is not said.
pub(super) fn waiting(
    request: &ApiRequest<'_>,
    default: Duration,
) -> Result<(u64, Duration), Reply> {
    let text = request.params.get("wait");
    check_wait(text)?;
    let wait = signed_duration(text).ok().filter(|wait| !wait.is_zero()).unwrap_or(default);
    Ok((check_index(request.params.get("index"))?, wait.min(request.rules.wait_max)))
}

fn check_wait(text: &str) -> Result<(), Reply> {
    if text.is_empty() || signed_duration(text).is_ok() {
        return Ok(());
    }
    Err(Reply::text(400, "Invalid wait time"))
}

fn check_index(text: &str) -> Result<u64, Reply> {
    if text.is_empty() {
        return Ok(0);
    }
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number).ok_or_else(|| Reply::text(400, "Invalid index"))
}

/// A duration that may be negative, which counts as zero.
fn signed_duration(text: &str) -> Result<Duration, duration::DurationError> {
    match text.strip_prefix('-') {
        Some(rest) => duration::parse(rest).map(|_| Duration::ZERO),
        None => duration::parse(text),
    }
}

/// How old a kept answer may be by `Cache-Control`; zero if none will do, `None` for any age
/// (http-api.md §1.8).
pub(super) fn age_max(request: &ApiRequest<'_>) -> Result<Option<Duration>, Reply> {
    let value = request.field(Field::CacheControl);
    check_cache_control(value)?;
    let directives = value.unwrap_or_default().split(',').map(str::trim);
    let ages = directives.filter_map(|directive| {
        if directive.eq_ignore_ascii_case("must-revalidate") {
            return Some(Duration::ZERO);
        }
        let (name, value) = directive.split_once('=')?;
        let is_age = name.trim().eq_ignore_ascii_case("max-age");
        is_age.then(|| value.trim().parse().ok().map(Duration::from_secs)).flatten()
    });
    Ok(ages.min())
}

/// How old a kept answer may be by `Cache-Control` where a newer one cannot be had.
pub(super) fn stale_if_error(request: &ApiRequest<'_>) -> Duration {
    let value = request.field(Field::CacheControl).unwrap_or_default();
    let ages = value.split(',').filter_map(|directive| {
        let (name, value) = directive.split_once('=')?;
        let is_age = name.trim().eq_ignore_ascii_case("stale-if-error");
        is_age.then(|| value.trim().parse().ok().map(Duration::from_secs)).flatten()
    });
    ages.min().unwrap_or_default()
}

/// Refuses a `Cache-Control` whose seconds are no number.
fn check_cache_control(value: Option<&str>) -> Result<(), Reply> {
    let bad = |directive: &str| {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        let wants_seconds =
            matches!(name.trim().to_ascii_lowercase().as_str(), "max-age" | "stale-if-error");
        wants_seconds && value.trim().parse::<u32>().is_err()
    };
    match value {
        Some(value) if value.split(',').any(|directive| bad(directive.trim())) => {
            Err(Reply::text(400, "Invalid Cache-Control header."))
        }
        Some(_) | None => Ok(()),
    }
}

/// A number in a parameter, or what Consul's servers say of it.
pub(super) fn unsigned(text: &str) -> Result<u64, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let fault = if digits { "value out of range" } else { "invalid syntax" };
    let number = text.parse().ok().filter(|_| digits);
    number.ok_or_else(|| format!("strconv.ParseUint: parsing {text:?}: {fault}"))
}
