// Looks at a node's dashboard and landing page with Chromium, as people would, while nodes of its cluster die
// and hang.
//
//     node live.js OPS_ADDRESS PUBLIC_ADDRESS ITS_PID VICTIM VICTIMS_PID FOLDER
//
// Prints a line for each step that went well, and leaves pictures in the folder.

'use strict';

const assert = require('node:assert/strict');
const path = require('node:path');
const { fits, inBothThemes, isAccessible, open, run, said, wrong } = require('./browser.js');
const scenes = require('./scenes.js');

const [ops, front, pid, victim, victimsPid, folder] = process.argv.slice(2);
const url = `http://${ops}/`;
const landing = `http://${front}/`;

/** The dashboard, kept open from the second step on. */
let page;

/** Reads the first frame that the node sends, as programs would. */
async function firstFrame() {
  const answer = await fetch(`${url}dashboard/stream`);
  const decoder = new TextDecoder();
  let text = '';
  for await (const part of answer.body) {
    text += decoder.decode(part, { stream: true });
    const frame = text.match(/^data: (.*)$/m);
    if (frame && text.endsWith('\n\n')) return JSON.parse(frame[1]);
  }
  throw new Error('the stream ended');
}

/** What it is made of: the names of all fields, at any depth; of lists, those of the first. */
function form(value, name = '') {
  if (Array.isArray(value)) return value.length ? form(value[0], `${name}[]`) : [];
  if (value === null || typeof value !== 'object') return [name];
  return Object.entries(value).flatMap(([key, part]) => form(part, `${name}.${key}`));
}

/** The scenes that stand in for large clusters have the form of what real nodes send. */
async function framesHaveTheirForm() {
  // What may be empty in one and not in the other.
  const sorted = (view) => form({ ...view, losses: [], certificates: {}, untold: [] }).filter((name) => !/waiting|leader$/.test(name)).sort();
  assert.deepEqual(sorted(await firstFrame()), sorted(scenes.healthy()));
}

async function looksWell(browser) {
  page = await open(browser, url);
  const answer = await page.goto(url);
  assert.match(answer.headers()['content-security-policy'], /^default-src 'none'; script-src 'self'; style-src 'self'/);
  await said(page, '#connection', /^live$/);
  await said(page, '#well', 'All is well: 3 nodes, no alarms');
  assert.equal(await page.locator('#text').isVisible(), false);
  assert.equal(await page.locator('#map .node[data-state="alive"]').count(), 3);
  assert.equal(await page.locator('#charts figure').count(), 6);
  assert.deepEqual(await page.locator('#nodes tbody .state').allTextContents(), Array(3).fill('● alive'));
  await said(page, '#registry', '✓ yes');
  await said(page, '#events', 'takes agents');
  await page.click('#links-details summary');
  // The others are asked for theirs: a link between two of them is known as well, and what it carries.
  await page.waitForFunction(() => document.querySelectorAll('#links tbody tr').length === 3);
  await page.waitForFunction(() => !document.querySelector('#links').textContent.includes('not known'));
  await said(page, '#map .label', /^[\d.]+ ms, [\d.]+ (K|M)?i?B\/s$/);
  await said(page, '#figures div', /^agents connected[1-9]/);
  await said(page, '#figures div', /^messages a second(?!0mean)/);
}

async function clicksThrough() {
  await page.click('#map .node >> nth=1');
  await said(page, '#detail h3', 'node-1');
  await said(page, '#detail', 'Link to node-0');
  await page.keyboard.press('Escape');
  await page.locator('#detail').waitFor({ state: 'hidden' });
  await page.focus('#map .node >> nth=2');
  await page.keyboard.press('Enter');
  await said(page, '#detail h3', victim);
  assert.equal(await page.locator('#map .node >> nth=2').getAttribute('aria-pressed'), 'true');
  await page.click('#detail button');
  await page.click('#nodes button >> nth=0');
  await said(page, '#detail h3', 'node-0');
  await page.keyboard.press('Escape');
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'node-0 (this)');
  await page.focus('#charts .plot >> nth=1');
  await page.keyboard.press('Home');
  await said(page, '#charts .value', / at \d\d:\d\d:\d\d$/);
  assert.match(await page.locator('#charts .plot >> nth=1').getAttribute('aria-valuetext'), / at \d\d:\d\d:\d\d$/);
  await page.click('#history-details summary');
  await page.locator('#history tbody tr').first().waitFor();
  await page.selectOption('#events-level', 'error');
  await said(page, '#no-events', 'None of that kind');
  await page.selectOption('#events-level', 'info');
  await said(page, '#events', 'started, release');
}

/** From the skip link on, each stop of the tab key can be seen, and the page is left at its end. */
async function byKeyboard() {
  await page.reload();
  await said(page, '#connection', /^live$/);
  await page.waitForFunction(() => document.querySelectorAll('#charts figure').length === 6);
  const stops = [];
  for (let n = 0; n < 60; n += 1) {
    await page.keyboard.press('Tab');
    const stop = await page.evaluate(() => {
      const it = document.activeElement;
      const { outlineStyle } = getComputedStyle(it);
      const halo = it.querySelector?.('.halo');
      const { width, height } = it.getBoundingClientRect();
      const isSeen = width > 4 && height > 4 && (outlineStyle !== 'none' || (halo && getComputedStyle(halo).stroke !== 'none'));
      return { name: it.id || it.className.baseVal || it.className || it.tagName, isSeen, text: it.textContent.slice(0, 30) };
    });
    if (stop.name === 'BODY' || stops.length > 1 && stop.name === 'skip') break;
    assert.ok(stop.isSeen, `the focus is not seen on ${JSON.stringify(stop)}`);
    stops.push(stop.name);
  }
  assert.equal(stops[0], 'skip');
  const order = ['node', 'events-level', 'plot', 'plain'].map((name) => stops.indexOf(name));
  assert.deepEqual(order, [...order].sort((a, b) => a - b), `as it is read: ${stops}`);
  assert.ok(order[0] > 0 && stops.at(-1) === 'A', `to the end: ${stops}`);
  await page.focus('.skip');
  await page.keyboard.press('Enter');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'main');
}

async function healthyInBothThemes() {
  await fits(page, 1280);
  await inBothThemes(page, folder, 'live');
  await fits(page, 360);
  await inBothThemes(page, folder, 'live-phone');
  await fits(page, 1280);
}

async function aDeath() {
  process.kill(Number(victimsPid), 'SIGKILL');
  await said(page, '#alarm-list li[data-level="error"]', `Error: ${victim} is dead`);
  assert.equal(await page.locator('#alarm-list').getAttribute('aria-live'), 'polite');
  await said(page, '#alarm-list', '1 of the 3 nodes that keep the names is gone');
  await said(page, '#alarm-list li time', /^since (\w+ \d+, )?\d\d:\d\d:\d\d$/);
  await said(page, '#nodes .state', '✕ dead');
  await said(page, '#figures', '2 of 3');
  await said(page, '#registry', `${victim} (✕ dead)`);
  await said(page, '#events', 'is dead: it went without a word');
  assert.equal(await page.locator('#well').isVisible(), false);
  await page.waitForFunction(() => /^\(\d\) /.test(document.title));
  await inBothThemes(page, folder, 'live-ailing');
}

/** Without scripts it is text; nothing of it waits for something that never comes. */
async function withoutScripts(browser) {
  const plain = await open(browser, url, { javaScriptEnabled: false });
  await plain.goto(url);
  await said(plain, '#text pre', 'node-1');
  await said(plain, '#text pre', 'is dead: it went without a word');
  assert.equal(await plain.locator('#board').isVisible(), false);
  await plain.screenshot({ path: path.join(folder, 'text.png'), fullPage: true });
  await plain.close();
}

async function theLandingPage(browser) {
  const page = await open(browser, landing);
  const answer = await page.goto(landing);
  assert.match(answer.headers()['content-security-policy'], /^default-src 'none'; script-src 'self'; style-src 'self'/);
  await said(page, 'pre', `curl -X POST -d '{"agent_id": "my-agent"}' ${landing}register`);
  await said(page, 'pre', `ws://${front}/arc`);
  await said(page, '[data-count="agents"]', /^[1-9]/);
  await page.click('button >> nth=0');
  await said(page, 'button', 'Copied');
  await fits(page, 1280);
  await inBothThemes(page, folder, 'landing');
  await fits(page, 360);
  await inBothThemes(page, folder, 'landing-phone');
  await page.click('a[href="/protocol"]');
  await said(page, 'body', 'ARC (Agent Relay Chat) lets programs');
  await page.close();
  const plain = await open(browser, landing, { javaScriptEnabled: false });
  await plain.goto(landing);
  await said(plain, 'pre', `${landing}register`);
  await plain.close();
}

/** Nothing went wrong until now; what comes is a connection that fails, of which the console may tell. */
async function aHang() {
  assert.deepEqual(wrong, []);
  process.kill(Number(pid), 'SIGSTOP');
  await said(page, '#connection', 'connection lost');
  await said(page, '#lost', 'Trying again');
  assert.match(await page.title(), /^✕ /);
  await isAccessible(page);
  await page.screenshot({ path: path.join(folder, 'lost.png'), fullPage: true });
  process.kill(Number(pid), 'SIGCONT');
  await said(page, '#connection', /^live$/);
  assert.equal(await page.locator('#lost').isVisible(), false);
}

/** And when it is gone for good, what was seen last is still there. */
async function theEnd() {
  process.kill(Number(pid), 'SIGKILL');
  await said(page, '#connection', 'connection lost');
  assert.equal(await page.locator('#nodes tbody tr').count(), 3);
  wrong.length = 0;
}

// A stopped process would never hear that it is to end.
run([
  framesHaveTheirForm, looksWell, clicksThrough, byKeyboard, healthyInBothThemes, theLandingPage, aDeath,
  withoutScripts, aHang, theEnd,
], () => process.kill(Number(pid), 'SIGCONT'));
