//! End-to-end tests, one module per subject. They are one binary, which is linked once.

#[macro_use]
mod cases;

mod announce;
mod broker;
mod browser;
mod containers;
mod direct;
mod doctor;
mod embedded;
mod error_texts;
mod everyday;
mod failover;
mod fifty_sessions;
mod guides;
mod half_open;
mod hostile_znodes;
mod info;
mod jetstream;
mod kubernetes;
mod listeners;
mod machinery;
mod mesh;
mod operation;
mod outages;
mod own_credentials;
mod packages;
mod pages;
mod prometheus;
mod promises;
mod registry;
mod scenario;
mod scripted_peers;
mod secrets;
mod service_manager;
mod site;
mod slow_loris;
mod soak;
mod sources;
mod tls;
mod tree;
mod upgrade;
mod views;
mod zookeeper_tls;
