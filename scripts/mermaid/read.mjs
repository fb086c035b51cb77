// Reads a flowchart with Mermaid's own parser, and prints what it has understood: nodes and edges.
import { JSDOM } from "jsdom";

const { window } = new JSDOM("");
Object.assign(globalThis, { window, document: window.document });
const { default: mermaid } = await import("mermaid");

let text = "";
for await (const part of process.stdin) text += part;
await mermaid.parse(text);
const { db } = await mermaid.mermaidAPI.getDiagramFromText(text);
const { nodes, edges } = db.getData();
// What stands for an entity until the diagram is drawn.
const shown = (label) =>
  (label ?? "").replace(/ﬂ°°(\d+)¶ß/g, (_, code) => String.fromCodePoint(Number(code)));
console.log(
  JSON.stringify({
    nodes: nodes.map((n) => ({
      id: n.id,
      label: shown(n.label),
      shape: n.shape,
      classes: n.cssClasses,
      parent: n.parentId ?? null,
    })),
    edges: edges.map((e) => ({
      from: e.start,
      to: e.end,
      label: shown(e.label),
      pattern: e.pattern,
    })),
  }),
);
