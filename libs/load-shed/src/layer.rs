//! The layer, and what its user has to say about requests and results.

use tower::Layer;

use crate::{LoadShed, LoadShedService, Priority, Sample};

/// Knows how urgent a request is; any function of it does.
pub trait PriorityOf<R>: Clone {
    /// The class of this request.
    fn priority_of(&self, request: &R) -> Priority;
}

impl<R, F: Fn(&R) -> Priority + Clone> PriorityOf<R> for F {
    fn priority_of(&self, request: &R) -> Priority {
        self(request)
    }
}

/// Knows what a result says about the load; any function of it does.
pub trait Classify<T, E>: Clone {
    /// What this result counts as.
    fn classify(&self, result: &Result<T, E>) -> Sample;
}

impl<T, E, F: Fn(&Result<T, E>) -> Sample + Clone> Classify<T, E> for F {
    fn classify(&self, result: &Result<T, E>) -> Sample {
        self(result)
    }
}

/// Puts a [`LoadShed`] in front of services. All of them share it, however often the layer is applied.
#[derive(Clone, Debug)]
pub struct LoadShedLayer<P, C> {
    shed: LoadShed,
    priority_of: P,
    classify: C,
}

impl<P, C> LoadShedLayer<P, C> {
    /// `priority_of` is asked before a call, see [`PriorityOf`], and `classify` after it, see [`Classify`].
    pub fn new(shed: LoadShed, priority_of: P, classify: C) -> Self {
        Self { shed, priority_of, classify }
    }
}

impl<S, P: Clone, C: Clone> Layer<S> for LoadShedLayer<P, C> {
    type Service = LoadShedService<S, P, C>;

    fn layer(&self, inner: S) -> Self::Service {
        LoadShedService::new(inner, self.shed.clone(), self.priority_of.clone(), self.classify.clone())
    }
}
