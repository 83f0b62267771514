//! stampede-psp-sim
