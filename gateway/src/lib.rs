//! The gateway: MQTT in, a durable journal, Kafka out.

pub mod access;
pub mod admin;
pub mod admin_guard;
pub mod audit;
pub mod broker;
pub mod cli;
pub mod clock;
pub mod connection;
mod dashboard;
pub mod demo;
pub mod fanout;
pub mod gateway;
pub mod identifiers;
pub mod identity;
pub mod limits;
pub mod listener;
pub mod mailbox;
pub mod metrics;
pub mod outgoing;
pub mod receipts;
pub mod retained;
pub mod rows;
pub mod session;
mod start;
pub mod status;
pub mod subscriptions;
pub mod trace;
