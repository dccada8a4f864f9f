// Looks at a node's dashboard with Chromium, as an operator would, while nodes of its cluster die and hang.
//
//     node dashboard.js OPS_ADDRESS ITS_PID VICTIM VICTIMS_PID FOLDER
//
// Prints a line for each step that went well, and leaves pictures in the folder; fails with a stack trace
// otherwise.

'use strict';

const assert = require('node:assert/strict');
const path = require('node:path');
const { chromium } = require('playwright-core');

const [ops, pid, victim, victimsPid, folder] = process.argv.slice(2);
const url = `http://${ops}/`;
const PATIENCE = 25_000;
const ARGUMENTS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
];

/** What a browser must not say, and where it must not go. */
const wrong = [];

function watched(page) {
  page.setDefaultTimeout(PATIENCE);
  page.on('pageerror', (error) => wrong.push(`an error: ${error}`));
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) wrong.push(`the console: ${message.text()}`);
  });
  page.on('request', (request) => {
    if (!request.url().startsWith(url)) wrong.push(`a request to ${request.url()}`);
  });
  return page;
}

const said = (page, selector, text) => page.locator(selector).filter({ hasText: text }).first().waitFor();
const picture = (page, name) => page.screenshot({ path: path.join(folder, `${name}.png`), fullPage: true });

async function looksWell(page) {
  await page.goto(url);
  await said(page, '#connection', /^live$/);
  await said(page, '#well', 'All is well');
  assert.equal(await page.locator('#map .node[data-state="alive"]').count(), 3);
  assert.equal(await page.locator('#charts figure').count(), 6);
  assert.deepEqual(await page.locator('#nodes tbody .state').allTextContents(), Array(3).fill('● alive'));
  await said(page, '#registry', '✓ yes');
  await said(page, '#events', 'takes agents');
  await page.click('#links-details summary');
  // The others are asked for theirs: a link between two of them is known as well.
  await page.waitForFunction(() => document.querySelectorAll('#links tbody tr').length === 3);
  await page.waitForFunction(() => !document.querySelector('#links').textContent.includes('not known'));
}

async function clicksThrough(page) {
  await page.click('#map .node >> nth=1');
  await said(page, '#detail h3', 'node-1');
  await said(page, '#detail', 'Link to node-0');
  await page.keyboard.press('Escape');
  await page.locator('#detail').waitFor({ state: 'hidden' });
  await page.focus(`#map .node >> nth=2`);
  await page.keyboard.press('Enter');
  await said(page, '#detail h3', victim);
  assert.equal(await page.locator('#map .node >> nth=2').getAttribute('aria-pressed'), 'true');
  await page.click('#detail button');
  await page.click('#nodes button >> nth=0');
  await said(page, '#detail h3', 'node-0');
  await page.keyboard.press('Escape');
  await page.focus('#charts svg >> nth=1');
  await page.keyboard.press('Home');
  await said(page, '#charts output', / at \d\d:\d\d:\d\d$/);
  await page.selectOption('#events-level', 'error');
  await page.waitForFunction(() => document.querySelectorAll('#events tbody tr').length === 0);
  await page.selectOption('#events-level', 'info');
  await said(page, '#events', 'started, release');
}

/** Everything that is shown must be within the screen's width, and each part must have a name. */
async function fits(page, width) {
  await page.setViewportSize({ width, height: 800 });
  const overflow = await page.evaluate(() => document.scrollingElement.scrollWidth - innerWidth);
  assert.ok(overflow <= 0, `the page is ${overflow} pixels too wide`);
  const nameless = await page.evaluate(() => [...document.querySelectorAll('section')]
    .filter((section) => !document.getElementById(section.getAttribute('aria-labelledby'))).length);
  assert.equal(nameless, 0);
}

async function inBothThemes(page, name) {
  const grounds = [];
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme });
    grounds.push(await page.evaluate(() => getComputedStyle(document.body).backgroundColor));
    await picture(page, `${name}-${colorScheme}`);
  }
  assert.notEqual(grounds[0], grounds[1]);
}

async function seesADeath(page) {
  process.kill(Number(victimsPid), 'SIGKILL');
  await said(page, '#alarm-list li[data-level="error"]', `Error: ${victim} is dead`);
  assert.equal(await page.locator('#alarm-list').getAttribute('aria-live'), 'polite');
  await said(page, '#nodes .state', '✕ dead');
  await said(page, '#figures', '2 of 3');
  await said(page, '#events', 'is dead: it went without a word');
  assert.equal(await page.locator('#well').isVisible(), false);
}

async function survivesAHang(page) {
  process.kill(Number(pid), 'SIGSTOP');
  await said(page, '#connection', 'connection lost');
  await said(page, '#connection', 'trying again');
  await picture(page, 'lost-dark');
  process.kill(Number(pid), 'SIGCONT');
  await said(page, '#connection', /^live$/);
}

async function degradesToText(browser) {
  const context = await browser.newContext({ javaScriptEnabled: false });
  const page = watched(await context.newPage());
  await page.goto(url);
  await said(page, 'noscript pre', 'node-1');
  assert.equal(await page.locator('noscript a[href="/cluster"]').count(), 1);
  await context.close();
}

(async () => {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ARGUMENTS });
  const page = watched(await browser.newPage({ viewport: { width: 1280, height: 900 }, reducedMotion: 'reduce' }));
  const step = async (name, work) => {
    await work();
    console.log(name);
  };
  await step('looks well', () => looksWell(page));
  await step('clicks through', () => clicksThrough(page));
  await step('in both themes', () => inBothThemes(page, 'healthy'));
  await step('on a phone', async () => {
    await fits(page, 360);
    await inBothThemes(page, 'phone');
    await fits(page, 1280);
  });
  await step('a death', () => seesADeath(page));
  await step('ailing in both themes', () => inBothThemes(page, 'ailing'));
  await step('without scripts', () => degradesToText(browser));
  assert.deepEqual(wrong, []);
  await step('a hang', () => survivesAHang(page));
  await browser.close();
  console.log('ok');
})().catch((error) => {
  // A stopped process would never hear that it is to end.
  process.kill(Number(pid), 'SIGCONT');
  console.error(error, wrong);
  process.exit(1);
});
