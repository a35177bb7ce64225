watchTables();
watchTheme();
document.documentElement.dataset.ready = "yes";
