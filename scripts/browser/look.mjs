// Opens a page as a light, a dark and a narrow screen show it, takes pictures of each into DIR (of all of it, and
// of what is seen first), and prints as JSON what the page asked for or complained of, and what is in it.
import puppeteer from "puppeteer-core";

const [, , page, dir, executablePath] = process.argv;
const screens = {
  light: { scheme: "light", width: 1120, height: 1480 },
  dark: { scheme: "dark", width: 1120, height: 1480 },
  narrow: { scheme: "light", width: 360, height: 740, isMobile: true },
};
const browser = await puppeteer.launch({
  executablePath,
  headless: true,
  // Without one where the user is root; nothing but our own page is opened.
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--force-color-profile=srgb"],
});
const found = {};
try {
  for (const [name, { scheme, ...viewport }] of Object.entries(screens)) {
    const tab = await browser.newPage();
    const said = [];
    const asked = [];
    tab.on("console", (message) => said.push(message.text()));
    tab.on("pageerror", (error) => said.push(String(error)));
    tab.on("dialog", async (dialog) => {
      said.push(`dialog: ${dialog.message()}`);
      await dialog.dismiss();
    });
    tab.on("request", (request) => asked.push(request.url()));
    await tab.setViewport(viewport);
    await tab.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
    await tab.goto(`file://${page}`, { waitUntil: "networkidle0" });
    await tab.screenshot({ path: `${dir}/${name}-top.png` });
    await tab.screenshot({ path: `${dir}/${name}.png`, fullPage: true });
    const seen = await tab.evaluate(() => ({
      width: document.documentElement.scrollWidth,
      background: getComputedStyle(document.body).backgroundColor,
      text: document.body.innerText,
      names: [...document.querySelectorAll("svg.flows .node > title")].map((t) => t.textContent),
      edges: document.querySelectorAll("svg.flows path.edge").length,
      runs: document.querySelectorAll("svg.runs rect.run").length,
      scripts: document.scripts.length + document.images.length,
      unnamed: [...document.querySelectorAll("svg")].filter(
        (s) => !s.querySelector(":scope > title") || !s.querySelector(":scope > desc"),
      ).length,
      headless: [...document.querySelectorAll("table")].filter(
        (t) => !t.caption || !t.querySelector("thead th[scope=col]"),
      ).length,
    }));
    found[name] = { said, asked: asked.filter((url) => url !== `file://${page}` && !url.startsWith("data:")), ...seen };
    await tab.close();
  }
} finally {
  await browser.close();
}
console.log(JSON.stringify(found));
