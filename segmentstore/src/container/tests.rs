mod commands;
mod expiry;
mod model;
mod order;
mod saved;
mod sessions;
