mod commands;
mod counted;
mod expiry;
mod frozen;
mod model;
mod order;
mod saved;
mod sessions;
