"""Speed on a GPU against timm: cases, measurement, plot, and the floor that no kernel can go below."""
