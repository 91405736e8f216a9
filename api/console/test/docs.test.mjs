import path from 'node:path';
import { looksRight, out, test } from './harness.mjs';

for (const [name, options] of Object.entries({
  light: { colorScheme: 'light' },
  dark: { colorScheme: 'dark' },
  narrow: { viewport: { width: 360, height: 740 } },
})) {
  test(`the interface as a page, ${name}`, options, async ({ page, url }) => {
    await page.goto(`${url}/docs`);
    await page.screenshot({ path: path.join(out, `docs-${name}.png`) }); // all of it would be very long
    await page.click('a[href="#putPromptSet"]');
    await page.locator('#putPromptSet pre').first().waitFor();
    await page.screenshot({ path: path.join(out, `docs-${name}-operation.png`) });
    await looksRight(page);
  });
}
