//! stampede-saga
