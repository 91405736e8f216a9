import { looksRight, test } from './harness.mjs';

for (const [name, options] of Object.entries({
  light: { colorScheme: 'light' },
  dark: { colorScheme: 'dark' },
  narrow: { viewport: { width: 360, height: 740 } },
})) {
  test(`the interface as a page, ${name}`, options, async ({ page, url, shot }) => {
    await page.goto(`${url}/docs`);
    await shot(`docs-${name}`);
    await looksRight(page);
    await page.click('a[href="#putPromptSet"]');
    await page.locator('#putPromptSet pre').first().waitFor();
    await shot(`docs-${name}-operation`);
  });
}
