// Chromium, and what every page must hold to in it: no errors, no requests elsewhere, no breach of the
// rules of accessibility, no sideways scrolling.

'use strict';

const assert = require('node:assert/strict');
const path = require('node:path');
const { source: axe } = require('axe-core');
const { chromium } = require('playwright-core');

const PATIENCE = 25_000;
const ARGUMENTS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
];

/** What a browser must not say, and where it must not go. */
const wrong = [];

const launch = () => chromium.launch({ executablePath: process.env.CHROMIUM, args: ARGUMENTS });

/** A page that may go to `url` alone. */
async function open(browser, url, options = {}) {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 }, reducedMotion: 'reduce', ...options });
  page.setDefaultTimeout(PATIENCE);
  page.on('pageerror', (error) => wrong.push(`an error: ${error}`));
  page.on('console', (message) => {
    // Browsers ask for one where a text has none to name.
    if (message.location().url.endsWith('/favicon.ico')) return;
    if (['error', 'warning'].includes(message.type())) wrong.push(`the console: ${message.text()}`);
  });
  page.on('request', (request) => {
    if (!request.url().startsWith(url)) wrong.push(`a request to ${request.url()}`);
  });
  return page;
}

/** Waits until an element that the selector finds says `text`. */
const said = (page, selector, text) => page.locator(selector).filter({ hasText: text }).first().waitFor();

/** Everything must be within the screen's width; and no text on the map may lie on another. */
async function fits(page, width) {
  await page.setViewportSize({ width, height: 800 });
  // A frame later all is drawn in the new width.
  await page.evaluate(() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn))));
  const overflow = await page.evaluate(() => document.scrollingElement.scrollWidth - innerWidth);
  assert.ok(overflow <= 0, `the page is ${overflow} pixels too wide for ${width}`);
  const overlaps = await page.evaluate(() => {
    const texts = [...document.querySelectorAll('#map text')].filter((text) => text.textContent);
    const boxes = texts.map((text) => ({ text: text.textContent, box: text.getBoundingClientRect() }));
    const meet = (a, b) => a.left < b.right - 2 && b.left < a.right - 2 && a.top < b.bottom - 3 && b.top < a.bottom - 3;
    return boxes.flatMap((one, n) => boxes.slice(n + 1).filter((other) => meet(one.box, other.box)).map((other) => `${one.text} / ${other.text}`));
  });
  assert.deepEqual(overlaps, [], `texts that overlap at ${width}`);
}

/** The rules of WCAG 2.2, AA, as far as a machine can check them: contrast, names, roles, tables. */
async function isAccessible(page) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }));
  assert.deepEqual(violations.map(({ id, nodes }) => [id, ...nodes.slice(0, 3).map((node) => `${node.target}: ${node.failureSummary}`)]), []);
}

/** Accessible in both themes, which differ; leaves a picture of each in the folder. */
async function inBothThemes(page, folder, name) {
  const grounds = [];
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme });
    grounds.push(await page.evaluate(() => getComputedStyle(document.documentElement.querySelector('body')).backgroundColor));
    await isAccessible(page);
    await page.screenshot({ path: path.join(folder, `${name}-${colorScheme}.png`), fullPage: true });
    console.log(`${name} in ${colorScheme}`);
  }
  assert.notEqual(grounds[0], grounds[1]);
}

/** Runs the steps in their order, and says of each that it went well, for somebody waits for each line; fails
 * with what went wrong. */
async function run(steps, onFailure = () => {}) {
  const browser = await launch();
  try {
    for (const step of steps) {
      await step(browser);
      console.log(step.name);
    }
    assert.deepEqual(wrong, []);
    console.log('ok');
  } catch (error) {
    onFailure();
    console.error(error, wrong);
    process.exitCode = 1;
  }
  await browser.close();
  process.exit();
}

module.exports = { fits, inBothThemes, isAccessible, open, run, said, wrong };
