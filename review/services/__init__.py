"""What each screen and each command does, without a screen. May use protocol, storage and the light files of ft; never gradio or torch."""
