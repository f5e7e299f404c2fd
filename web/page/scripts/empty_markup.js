/**
 * The one exception to `require-trusted-types-for 'script'`: markup may be set to nothing. OpenSeadragon empties its
 * elements so. Any other text that is set as markup, by whatever script, throws.
 */
window.trustedTypes?.createPolicy("default", { createHTML: (markup) => (markup === "" ? "" : null) });
