//! Says how much each of its lines matters: `hearth logs` shows it, beside what is printed.
//!
//! `curl -d '{"order":7,"stock":2}' http://127.0.0.1:3411/log`

use hearth_sdk::{Error, function, log};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Deserialize, JsonSchema)]
struct Order {
    order: u32,
    stock: u32,
}

/// Takes an order, and says so.
#[function]
fn log(order: Order) -> Result<(), Error> {
    log::debug!("the order is {} and the stock {}", order.order, order.stock);
    if order.stock == 0 {
        log::error!(target: "stock", "nothing is left for the order {}", order.order);
        return Err(Error::new(409, "it is sold out"));
    }
    if order.stock < 3 {
        log::warn!(target: "stock", "{} are left", order.stock);
    }
    log::info!("took the order {}", order.order);
    Ok(())
}
