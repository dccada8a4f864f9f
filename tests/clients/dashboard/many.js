// Looks at the dashboard of clusters that no test can start: see scenes.js.
//
//     node many.js FOLDER
//
// Prints a line for each step that went well, and leaves pictures in the folder.

'use strict';

const assert = require('node:assert/strict');
const { fits, inBothThemes, open, run, said, wrong } = require('./browser.js');
const { ailing, alone, healthy, hundred, serve, twoDozen } = require('./scenes.js');

const [folder] = process.argv.slice(2);

/** Opens a scene, as large and as small as screens are, and lets `look` see to what is its own. */
const looks = (name, scene, look, steps) => ({
  async [name](browser) {
    const server = await serve(scene(), steps);
    const page = await open(browser, server.url);
    await page.goto(server.url);
    await said(page, '#connection', /^live$/);
    await page.waitForFunction(() => document.querySelectorAll('#charts figure').length === 6);
    await look(page, server);
    console.log(`${name} is as it should be`);
    for (const width of [1024, 768, 1280]) await fits(page, width);
    await inBothThemes(page, folder, name);
    await fits(page, 360);
    await fits(page, 390);
    await inBothThemes(page, folder, `${name}-phone`);
    await page.close();
    server.close();
  },
})[name];

const alarms = (page) => page.locator('#alarm-list li').count();

async function anEmptyOne(page) {
  await said(page, '#well', 'All is well: 1 node, no alarms');
  await said(page, '#losses', 'None since the start');
  await said(page, '#certificates', 'Agents connect without TLS here');
}

async function aHealthyOne(page) {
  await said(page, '#well', 'All is well: 3 nodes, no alarms');
  await said(page, '#figures', '61 days');
  assert.equal(await page.locator('#map .label', { hasText: '81 ms, 234 KiB/s' }).count(), 2);
  // Agents' own doing is counted, and no alarm.
  await said(page, '#losses', 'the recipient is not connected (offline)');
  assert.equal(await page.locator('#figures [data-level]').count(), 0);
}

async function anAilingOne(page) {
  const level = (text) => page.locator('#alarm-list li').filter({ hasText: text }).getAttribute('data-level');
  assert.equal(await level('eu-west-1 is dead'), 'error');
  assert.equal(await level('No names can be registered'), 'error');
  assert.equal(await level('The certificate of us-east-3 has expired'), 'error');
  assert.equal(await level('eu-west-2 is not heard'), 'warn');
  await said(page, '#alarm-list li:last-child', 'more alarms');
  assert.equal(await alarms(page), 8, 'no more than can be read');
  const words = await page.locator('#alarm-list li .advice').allTextContents();
  assert.ok(words.every((text) => text.length > 20), 'each says what to do');
  await said(page, '#alarm-list li time', /^since (\w+ \d+, )?\d\d:\d\d:\d\d$/);
  const since = await page.locator('#alarm-list li').filter({ hasText: 'has expired' }).locator('time').getAttribute('datetime');
  assert.ok(Math.abs(Date.now() - 7_000_000 - Date.parse(since)) < 60_000, `the certificate ended two hours ago, not ${since}`);
  await page.click('#alarm-list button >> nth=0');
  await said(page, '#detail h3', 'eu-west-1');
  await page.keyboard.press('Escape');
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Show', 'the focus is back where it was');
  await page.click('#links-details summary');
  await said(page, '#links', '✕ missing');
  await said(page, '#links', '18 MiB');
  await said(page, '#figures', 'closed');
}

/** Nobody reads 276 lines: those between regions are drawn, and those that are broken. */
async function aFullMap(page) {
  assert.equal(await page.locator('#map .cell').count(), 24);
  assert.equal(await page.locator('#map .link').count(), 3);
  await said(page, '#map .cell-name', 'eu-west-1');
  await page.focus('#map [tabindex="0"]');
  await page.keyboard.press('End');
  await page.keyboard.press('Enter');
  await said(page, '#detail h3', 'us-east-23');
  await said(page, '#detail', 'Link to ap-south-0');
  await page.keyboard.press('Escape');
  await page.click('#links-details summary');
  assert.equal(await page.locator('#links tbody tr').count(), 276);
}

async function aHundred(page) {
  assert.equal(await page.locator('#map .cell').count(), 100);
  assert.equal(await page.locator('#map .link').count(), 3, 'one line for each pair of regions');
  assert.equal(await page.locator('#nodes tbody tr').count(), 100);
  await said(page, '#figures', '99 of 100');
  await page.click('#links-details summary');
  await said(page, '#links', 'within eu-west');
  // The map is one stop of the tab key, not a hundred.
  assert.equal(await page.locator('#map [tabindex="0"]').count(), 1);
  await page.focus('#map [tabindex="0"]');
  for (const key of ['ArrowRight', 'ArrowDown', 'Enter']) await page.keyboard.press(key);
  await said(page, '#detail h3', /-\d+$/);
  await page.keyboard.press('Escape');
  // A frame is drawn within a part of the second that it is shown for.
  const spent = await page.evaluate(async () => {
    const begin = performance.now();
    for (let n = 0; n < 20; n += 1) dispatchEvent(new Event('resize'));
    return (performance.now() - begin) / 20;
  });
  assert.ok(spent < 100, `a frame takes ${spent} ms`);
}

/** What is wrong is told when it comes, and no more when it is mended. */
async function changes(browser) {
  const server = await serve(healthy());
  const page = await open(browser, server.url);
  await page.goto(server.url);
  await said(page, '#well', 'All is well');
  server.show(ailing());
  await said(page, '#alarm-list', 'eu-west-1 is dead');
  assert.match(await page.title(), /^\(\d+\) relay/);
  server.show(healthy());
  await said(page, '#well', 'All is well');
  assert.equal(await alarms(page), 0);
  server.show(hundred());
  await page.waitForFunction(() => document.querySelectorAll('#map .cell').length === 100);
  await page.close();
  server.close();
}

/** A node that is gone and comes back, as another life of its: the page goes on by itself, and asks for what is new. */
async function aRestart(browser) {
  const server = await serve(healthy());
  const page = await open(browser, server.url);
  await page.goto(server.url);
  await said(page, '#events', 'takes agents');
  const before = await page.locator('#events li').count();
  assert.deepEqual(wrong, []);
  server.close();
  await said(page, '#connection', 'connection lost');
  await said(page, '#lost', /^Connection lost\. What you see is of \d\d:\d\d:\d\d\. Trying again/);
  const told = await page.locator('#lost').textContent();
  // With the second try, the first has failed.
  for (let tries = 0; tries < 2; tries += 1) await page.waitForRequest(/stream$/);
  assert.equal(await page.locator('#lost').textContent(), told, 'trying again makes it no newer');
  server.refuse(true);
  server.show({ ...healthy(), epoch: 2 });
  await server.openAgain();
  await said(page, '#lost', /^The node shows nothing now: too many .* What you see is of/);
  server.refuse(false);
  await said(page, '#connection', /^live$/);
  assert.equal(await page.locator('#lost').isVisible(), false);
  // What the former life told is kept, and the new one's comes after it.
  await page.waitForFunction((count) => document.querySelectorAll('#events li').length === 2 * count, before);
  // That it could not connect, the browser says too.
  assert.ok(wrong.every((text) => /net::ERR_|status of 503/.test(text)), wrong.join('\n'));
  wrong.length = 0;
  await page.close();
  server.close();
}

run([
  looks('alone', alone, anEmptyOne, 1),
  looks('healthy', healthy, aHealthyOne),
  looks('ailing', ailing, anAilingOne),
  looks('two-dozen', twoDozen, aFullMap),
  looks('hundred', hundred, aHundred),
  changes,
  aRestart,
]);
