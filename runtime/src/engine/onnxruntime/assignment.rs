//! Which provider ONNX Runtime gave each node to.

use std::{
    collections::BTreeMap,
    ffi::{CStr, c_char},
    ptr, slice,
};

use ort::{AsPointer, session::Session, sys};

use crate::engine::NodeCount;

/// Counts the nodes of a session by provider and operator; most come first.
///
/// The session must have been built with `session.record_ep_graph_assignment_info`.
pub(super) fn of(session: &Session) -> Result<Vec<NodeCount>, ort::Error> {
    let api = ort::api();
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut subgraphs = ptr::null();
    let mut count = 0;
    // SAFETY: the crate `ort` has no safe form of these functions. The session is alive, and the results
    // are written to locals of the right types.
    check(unsafe { (api.Session_GetEpGraphAssignmentInfo)(session.ptr(), &raw mut subgraphs, &raw mut count) })?;
    // SAFETY: the session owns an array of `count` pointers at `subgraphs`, and outlives this function.
    for &subgraph in unsafe { array(subgraphs, count) } {
        let provider = text(|out| {
            // SAFETY: `subgraph` is one of the session's.
            unsafe { (api.EpAssignedSubgraph_GetEpName)(subgraph, out) }
        })?;
        let mut nodes = ptr::null();
        let mut count = 0;
        // SAFETY: as above.
        check(unsafe { (api.EpAssignedSubgraph_GetNodes)(subgraph, &raw mut nodes, &raw mut count) })?;
        // SAFETY: the session owns an array of `count` pointers at `nodes`.
        for &node in unsafe { array(nodes, count) } {
            let operator = text(|out| {
                // SAFETY: `node` is one of the session's.
                unsafe { (api.EpAssignedNode_GetOperatorType)(node, out) }
            })?;
            *counts.entry((provider.clone(), operator)).or_default() += 1;
        }
    }
    let mut counts: Vec<_> =
        counts.into_iter().map(|((provider, operator), nodes)| NodeCount { provider, operator, nodes }).collect();
    counts.sort_by(|left, right| left.provider.cmp(&right.provider).then(right.nodes.cmp(&left.nodes)));
    Ok(counts)
}

fn check(status: sys::OrtStatusPtr) -> Result<(), ort::Error> {
    // SAFETY: the status comes from ONNX Runtime, and is given away here.
    unsafe { ort::Error::result_from_status(status) }
}

/// # Safety
/// `start` must be null, or point to `count` values that live as long as the result is used.
unsafe fn array<'a, T>(start: *const T, count: usize) -> &'a [T] {
    if start.is_null() {
        return &[];
    }
    // SAFETY: by the caller's promise.
    unsafe { slice::from_raw_parts(start, count) }
}

/// Copies the text that a function of the API gives out.
fn text(get: impl FnOnce(*mut *const c_char) -> sys::OrtStatusPtr) -> Result<String, ort::Error> {
    let mut name = ptr::null();
    check(get(&raw mut name))?;
    if name.is_null() {
        return Ok(String::new());
    }
    // SAFETY: ONNX Runtime gives out texts that end with a zero and live as long as the session.
    Ok(unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned())
}
