"""The Gradio screens: one file a screen, one Blocks per role area. They call services and hold no rule of their own."""
