// Open notebooks in a real JupyterLab in headless Chromium, choose "Run All Cells", and say what came of each.
// Not part of `make test`; CONTRIBUTING.md says how to run it. Arguments: address of the lab with its token, folder
// for screenshots, notebooks (paths as the lab sees them).
import { chromium } from "playwright-core";

const [address, folder, ...notebooks] = process.argv.slice(2);
const { origin, searchParams } = new URL(address);
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
let failed = 0;
for (const notebook of notebooks) {
  const page = await browser.newPage({ viewport: { width: 1400, height: 1000 } });
  await page.goto(`${origin}/lab/tree/${notebook}?token=${searchParams.get("token")}&reset`);
  await page.waitForSelector(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Cell", { timeout: 60000 });
  const kernel = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-KernelName");
  await kernel.filter({ hasText: "Python 3" }).waitFor({ timeout: 60000 });
  await page.waitForSelector('[data-status="idle"]', { timeout: 60000 });
  await page.click('.lm-MenuBar-itemLabel:text-is("Run")');
  await page.click('.lm-Menu-itemLabel:text-is("Run All Cells")');
  const started = Date.now();
  let state;
  do {
    await page.waitForTimeout(1000);
    // What the notebook itself holds, as only the cells in view are drawn.
    state = await page.evaluate(() => {
      const cells = [...window.jupyterapp.shell.currentWidget.content.model.sharedModel.cells];
      const code = cells.filter((cell) => cell.cell_type === "code");
      const errors = code.flatMap((cell) => cell.outputs).filter((output) => output.output_type === "error");
      const pictures = code.flatMap((cell) => cell.outputs).filter((output) => output.data?.["image/png"]);
      return {
        all: code.length,
        done: code.filter((cell) => cell.execution_count > 0).length,
        error: errors.map((output) => `${output.ename}: ${output.evalue}`)[0],
        pictures: pictures.length,
      };
    });
  } while (state.done < state.all && !state.error && Date.now() - started < 20 * 60000);
  await page.waitForTimeout(3000);
  const name = notebook.split("/").pop().replace(".ipynb", "");
  await page.screenshot({ path: `${folder}/${name}.png` });
  const seconds = Math.round((Date.now() - started) / 1000);
  console.log(`${name}: ${state.done} of ${state.all} cells, ${state.pictures} pictures, ${seconds} s ${state.error ?? ""}`);
  failed += state.done < state.all || Boolean(state.error);
  await page.close({ runBeforeUnload: false });
}
await browser.close();
process.exit(failed ? 1 : 0);
