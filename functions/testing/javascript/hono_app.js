// A Hono application as its own documentation has it: it knows of no path but those below its own
// root.

import { Hono } from "hono";

const app = new Hono();
app.get("/", (c) => c.text("hono at its root"));
app.get("/users/:name", (c) => c.text(`hono greets ${c.req.param("name")}`));
app.post("/users/:name", async (c) =>
    c.text(`hono takes ${await c.req.text()} from ${c.req.param("name")}`),
);
app.get("/prefix", (c) => c.text(c.req.header("x-forwarded-prefix") ?? "none"));
app.fire();
