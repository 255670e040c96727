// Makes hono_app.wasm of hono_app.js: one file of all modules, and then a component.

import { writeFile } from "node:fs/promises";
import { componentize } from "@bytecodealliance/componentize-js";
import { rolldown } from "rolldown";

const bundle = await rolldown({ input: "hono_app.js", logLevel: "warn" });
await bundle.write({ file: "bundle.js", format: "esm" });
const { component } = await componentize({
    sourcePath: "bundle.js",
    witPath: "wit",
    worldName: "app",
});
await writeFile("hono_app.wasm", component);
